"""Columns of the in-flight table over the lives of replicas and actors."""

from cortex_core.ids import ReplicaId
from cortexd.fleet.columns import ColumnTable

X, Y, Z = ReplicaId("n/x"), ReplicaId("n/y"), ReplicaId("n/z")


def test_a_replica_keeps_its_column_while_it_is_known() -> None:
    columns = ColumnTable(4)
    assert columns.take(X) == columns.take(X)
    assert columns.take(X) != columns.take(Y)


def test_a_column_in_which_somebody_counts_is_not_given_away() -> None:
    columns = ColumnTable(1)
    column = columns.take(X)
    assert column is not None
    columns.give_back(X)
    columns.published()
    columns.emptied({column: 1})
    assert columns.take(Y) is None
    columns.emptied({column: 0})
    assert columns.take(Y) == column


def test_a_column_that_workers_still_see_is_not_given_away() -> None:
    columns = ColumnTable(1)
    column = columns.take(X)
    columns.give_back(X)
    columns.emptied({})
    assert columns.take(Y) is None
    columns.published()
    columns.emptied({})
    assert columns.take(Y) == column


def test_a_replica_that_comes_back_finds_its_column() -> None:
    columns = ColumnTable(2)
    column = columns.take(X)
    columns.give_back(X)
    columns.take(Y)
    assert columns.take(X) == column


def test_columns_of_the_last_actor_are_kept_for_their_replicas() -> None:
    columns = ColumnTable(3, {X: 2, Y: 0})
    assert (columns.take(X), columns.take(Z)) == (2, 1)
    columns.emptied({})
    assert sorted(columns.in_use()) == [0, 1, 2]
    columns.published()
    columns.emptied({})
    assert sorted(columns.in_use()) == [1, 2]
