"""Medians, percentiles, and which times between tokens belong to a window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.serve.figures import good, intervals_within, percentile, told
from bench.serve.stream import StreamResult

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=50)


@given(VALUES, st.floats(0, 100))
def test_a_percentile_lies_between_lowest_and_highest(values: list[float], percent: float) -> None:
    assert min(values) <= percentile(values, percent) <= max(values)


@given(VALUES)
def test_percentiles_rise(values: list[float]) -> None:
    found = [percentile(values, percent) for percent in (0, 50, 95, 100)]
    assert found == pytest.approx(sorted(found))
    assert (found[0], found[3]) == (min(values), max(values))


def test_a_percentile_between_two_values_is_in_proportion() -> None:
    assert percentile([10.0, 20.0], 25) == 12.5
    assert percentile([], 95) == 0.0


def test_a_figure_keeps_what_it_is_the_median_of() -> None:
    assert told("ttft_ms", [3.0, 1.0, 2.00049]) == {
        "ttft_ms": 2.00049,
        "ttft_ms_all": [3.0, 1.0, 2.0],
    }


def test_only_streams_without_errors_are_good() -> None:
    fine, failed = StreamResult(), StreamResult(error="HTTP 500")
    assert good([failed, fine]) == [fine]


@pytest.mark.parametrize(
    ("times", "rate"),
    [([], None), ([1.0], None), ([1.0, 1.0, 1.0], None), ([1.0, 1.5, 2.0], 2.0)],
)
def test_a_decode_rate_needs_time_between_chunks(times: list[float], rate: float | None) -> None:
    assert StreamResult(chunk_times=times).decode_tokens_per_s == rate


class TestIntervalsWithin:
    RESULT = StreamResult(chunk_times=[0.0, 1.0, 2.0, 5.0, 6.0])

    def test_those_that_lie_inside_or_reach_in(self) -> None:
        assert intervals_within(self.RESULT, 1.5, 5.5) == [1.0, 3.0, 1.0]

    def test_a_stall_over_the_whole_window_is_seen(self) -> None:
        assert intervals_within(self.RESULT, 3.0, 4.0) == [3.0]

    def test_neighbours_that_only_touch_are_left_out(self) -> None:
        assert intervals_within(self.RESULT, 1.0, 2.0) == [1.0]

    def test_a_stream_without_chunks_has_none(self) -> None:
        assert intervals_within(StreamResult(), 0.0, 9.0) == []
