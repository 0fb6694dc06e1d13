"""How often a node is asked while something is loading on it."""

import pytest

from cortex_core.ids import NodeName
from cortexd.fleet.pace import LoadingPace

N, OTHER = NodeName("n"), NodeName("other")


def test_a_load_is_heard_of_within_a_tenth_of_its_time_and_a_bound() -> None:
    pace = LoadingPace(1.0)
    assert pace.interval_s(N, 100.0) == 0.05
    assert pace.interval_s(N, 100.4) == 0.05
    assert pace.interval_s(N, 102.0) == pytest.approx(0.2)
    assert pace.interval_s(N, 160.0) == 1.0


def test_each_load_and_each_node_begins_anew() -> None:
    pace = LoadingPace(1.0)
    pace.interval_s(N, 0.0)
    assert pace.interval_s(OTHER, 60.0) == 0.05
    pace.settled(N)
    pace.settled(N)
    assert pace.interval_s(N, 61.0) == 0.05


def test_a_shorter_interval_is_kept_to() -> None:
    pace = LoadingPace(0.01)
    assert pace.interval_s(N, 0.0) == 0.01
