"""Bytes to shares and remaining time."""

from cortex_core.neuron_api import LoadProgress
from neurond.sources.base import FetchProgress
from neurond.sources.library import Estimate


def test_a_share_comes_at_once_and_an_eta_when_there_is_a_rate() -> None:
    estimate = Estimate()
    first = estimate.update(FetchProgress("fetching", 100, 1000), 10.0)
    assert first == LoadProgress("fetching", 0.1)
    later = estimate.update(FetchProgress("fetching", 300, 1000), 12.0)
    assert later == LoadProgress("fetching", 0.3, 7.0)


def test_bytes_of_an_earlier_try_do_not_count_as_speed() -> None:
    estimate = Estimate()
    estimate.update(FetchProgress("fetching", 900, 1000), 0.0)
    assert estimate.update(FetchProgress("fetching", 910, 1000), 1.0).eta_s == 9.0


def test_a_stage_without_a_size_has_no_share() -> None:
    estimate = Estimate()
    estimate.update(FetchProgress("fetching", 900, 1000), 0.0)
    assert estimate.update(FetchProgress("preparing"), 5.0) == LoadProgress("preparing")
