"""Counts add up over rows, and a row is cleared without touching the others."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import InternalError
from cortex_core.ipc.counters import CounterTable, counter_segment_bytes
from cortex_core.ipc.segment import Segment

ROWS, COLUMNS = 3, 5


@pytest.fixture
def table() -> Iterator[CounterTable]:
    segment = Segment.create("counters", counter_segment_bytes(ROWS, COLUMNS))
    yield CounterTable(segment, COLUMNS)
    segment.close()


@given(st.lists(st.tuples(st.integers(0, ROWS - 1), st.integers(0, COLUMNS - 1), st.booleans())))
def test_columns_add_up_over_rows(steps: list[tuple[int, int, bool]]) -> None:
    segment = Segment.create("counters", counter_segment_bytes(ROWS, COLUMNS))
    table = CounterTable(segment, COLUMNS)
    model = [[0] * COLUMNS for _ in range(ROWS)]
    for row, column, up in steps:
        if up:
            table.row(row).increment(column)
            model[row][column] += 1
        elif model[row][column]:
            table.row(row).decrement(column)
            model[row][column] -= 1
    assert [table.sum(column) for column in range(COLUMNS)] == [
        sum(row[column] for row in model) for column in range(COLUMNS)
    ]
    segment.close()


def test_clearing_a_row_leaves_the_others(table: CounterTable) -> None:
    table.row(0).increment(2)
    table.row(1).increment(2)
    table.clear_row(0)
    assert table.sum(2) == 1
    table.row(1).decrement(2)
    with pytest.raises(InternalError, match="it is 0"):
        table.row(0).decrement(2)


def test_count_below_zero_is_an_error(table: CounterTable) -> None:
    with pytest.raises(InternalError, match="cannot count column 4 down"):
        table.row(0).decrement(4)


def test_places_outside_the_table_are_errors(table: CounterTable) -> None:
    with pytest.raises(InternalError, match="row 3"):
        table.row(3)
    with pytest.raises(InternalError, match="column 5"):
        table.sum(5)


def test_segment_that_is_too_small_is_refused() -> None:
    segment = Segment.create("counters", 4)
    with pytest.raises(InternalError, match="cannot use 4 bytes as a table of 2 columns"):
        CounterTable(segment, 2)
    segment.close()
