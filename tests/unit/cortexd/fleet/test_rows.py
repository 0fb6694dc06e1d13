"""Rows of the in-flight table over the lives of replicas and actors."""

from cortex_core.ids import ReplicaId
from cortexd.fleet.rows import RowTable

X, Y, Z = ReplicaId("n/x"), ReplicaId("n/y"), ReplicaId("n/z")


def test_a_replica_keeps_its_row_while_it_is_known() -> None:
    rows = RowTable(4)
    assert rows.take(X) == rows.take(X)
    assert rows.take(X) != rows.take(Y)


def test_a_row_in_which_somebody_counts_is_not_given_away() -> None:
    rows = RowTable(1)
    row = rows.take(X)
    assert row is not None
    rows.give_back(X)
    rows.published()
    rows.emptied({row: 1})
    assert rows.take(Y) is None
    rows.emptied({row: 0})
    assert rows.take(Y) == row


def test_a_row_that_workers_still_see_is_not_given_away() -> None:
    rows = RowTable(1)
    row = rows.take(X)
    rows.give_back(X)
    rows.emptied({})
    assert rows.take(Y) is None
    rows.published()
    rows.emptied({})
    assert rows.take(Y) == row


def test_a_replica_that_comes_back_finds_its_row() -> None:
    rows = RowTable(2)
    row = rows.take(X)
    rows.give_back(X)
    rows.take(Y)
    assert rows.take(X) == row


def test_rows_of_the_last_actor_are_kept_for_their_replicas() -> None:
    rows = RowTable(3, {X: 2, Y: 0})
    assert (rows.take(X), rows.take(Z)) == (2, 1)
    rows.emptied({})
    assert sorted(rows.in_use()) == [0, 1, 2]
    rows.published()
    rows.emptied({})
    assert sorted(rows.in_use()) == [1, 2]
