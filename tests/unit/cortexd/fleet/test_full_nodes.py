"""Nodes that had no room for a request: who waits for how long, and who goes elsewhere."""

import pytest

from cortex_core.ids import ModelId, ReplicaId
from cortexd.config import ModelConfig
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.protocol import Granted, Rejected
from tests.fakes.fleet_world import answers, ask, dispatcher_of, loads, node_model, polled

A = ModelId("file:a")
ON_N = ReplicaId("n/file:a")


def fleet_of(*nodes: str, max_wait_s: float = 120.0) -> Dispatcher:
    """Nodes that have A ready."""
    fleet = dispatcher_of(*nodes, max_wait_s=max_wait_s)
    for node in nodes:
        fleet.apply(polled(node, node_model(A)), 0.0)
    return fleet


@pytest.mark.parametrize(("said_s", "full_s"), [(None, 1.0), (0.01, 1.0), (3.0, 3.0), (600.0, 5.0)])
def test_requests_wait_as_long_as_the_node_says_within_bounds(
    said_s: float | None, full_s: float
) -> None:
    fleet = fleet_of("n")
    fleet.report_full(ON_N, said_s, 10.0)

    assert answers(ask(fleet, A, "turned away", 10.0, failed_on=(ON_N,))) == {}
    assert answers(ask(fleet, A, "new", 10.0)) == {}
    assert answers(fleet.tick(10.0 + full_s - 0.1)) == {}
    assert set(answers(fleet.tick(10.0 + full_s))) == {"turned away", "new"}


def test_a_shorter_word_does_not_cut_a_longer_one_short() -> None:
    fleet = fleet_of("n")
    fleet.report_full(ON_N, 4.0, 10.0)
    fleet.report_full(ON_N, 1.0, 10.5)
    ask(fleet, A, "one", 10.5)

    assert answers(fleet.tick(13.9)) == {}
    assert "one" in answers(fleet.tick(14.0))


def test_workers_see_that_a_replica_is_full_and_that_it_is_not_any_more() -> None:
    fleet = fleet_of("n")
    fleet.report_full(ON_N, 1.0, 10.0)
    seen = fleet.news()
    assert [replica.full for replica in fleet.snapshot().replicas] == [True]

    fleet.tick(11.0)

    assert fleet.news() != seen
    assert [replica.full for replica in fleet.snapshot().replicas] == [False]


def test_another_replica_with_room_is_taken_at_once() -> None:
    fleet = fleet_of("n", "m")
    fleet.report_full(ON_N, 1.0, 10.0)

    granted = answers(ask(fleet, A, "one", 10.0, failed_on=(ON_N,)))["one"]

    assert isinstance(granted, Granted)
    assert granted.replica.node == "m"


def test_one_more_replica_is_loaded_where_it_may_be() -> None:
    fleet = dispatcher_of("n", "m", models=(ModelConfig(id=A, max_replicas=2),))
    fleet.apply(polled("n", node_model(A)), 0.0)
    fleet.apply(polled("m", node_model(A, "unloaded")), 0.0)
    fleet.report_full(ON_N, 1.0, 10.0)

    effects = ask(fleet, A, "one", 10.0, failed_on=(ON_N,))

    assert [(load.load.node, load.load.evict) for load in loads(effects)] == [("m", ())]


def test_all_waits_of_a_request_together_are_bounded() -> None:
    fleet = fleet_of("n", max_wait_s=20.0)
    fleet.report_full(ON_N, 5.0, 100.0)
    ask(fleet, A, "one", 100.0, failed_on=(ON_N,), waited_s=18.0)

    assert answers(fleet.tick(101.9)) == {}
    rejected = answers(fleet.tick(102.0))["one"]

    assert isinstance(rejected, Rejected)
    assert "within 20 s" in rejected.error.message
    assert rejected.error.retry_after_s


def test_a_request_that_waited_as_long_as_it_may_is_not_sent_again() -> None:
    fleet = fleet_of("n", max_wait_s=20.0)
    answer = answers(ask(fleet, A, "one", 100.0, failed_on=(ON_N,), waited_s=20.0))["one"]
    assert isinstance(answer, Rejected)


def test_a_replica_that_is_gone_is_no_matter() -> None:
    fleet = fleet_of("n")
    fleet.apply(polled("n", version=2), 1.0)
    assert fleet.report_full(ON_N, 1.0, 2.0) == []
