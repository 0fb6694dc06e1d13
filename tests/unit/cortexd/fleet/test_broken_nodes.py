"""Requests and nodes that broke off, may come back, or were drained."""

from cortex_core.errors import NodeUnavailable
from cortex_core.ids import ModelId, NodeName, ReplicaId
from cortexd.fleet.effects import PollNow
from cortexd.fleet.events import (
    Cordoned,
    NodeFailed,
)
from cortexd.fleet.protocol import Rejected
from tests.fakes.fleet_world import (
    answers,
    ask,
    dispatcher_of,
    loads,
    node_model,
    polled,
)

A, B = ModelId("file:a"), ModelId("file:b")
N = NodeName("n")


def test_a_broken_stream_stops_routing_until_the_node_was_asked() -> None:
    fleet = dispatcher_of("n")
    fleet.apply(polled("n", node_model(A)), 0.0)

    reported = fleet.report_failure(ReplicaId("n/file:a"), 1.0)
    assert PollNow(N) in reported
    assert answers(ask(fleet, A, "one", 1.1)) == {}
    assert answers(fleet.apply(polled("n", node_model(A), at=0.9), 1.2)) == {}
    assert "one" in answers(fleet.apply(polled("n", node_model(A), at=1.0), 1.3))


def test_a_node_that_broke_a_stream_and_does_not_answer_is_gone_at_once() -> None:
    fleet = dispatcher_of("n", "m")
    fleet.apply(polled("n", node_model(A)), 0.0)
    fleet.apply(polled("m", node_model(A, "unloaded")), 0.0)
    fleet.report_failure(ReplicaId("n/file:a"), 1.0)
    ask(fleet, A, "one", 1.1)

    effects = fleet.apply(NodeFailed(N, NodeUnavailable("no answer")), 1.2)

    assert [load.load.node for load in loads(effects)] == ["m"]


def test_requests_wait_for_a_node_that_may_come_back_but_not_for_long() -> None:
    fleet = dispatcher_of("n")
    fleet.apply(polled("n", node_model(A)), 0.0)
    fleet.report_failure(ReplicaId("n/file:a"), 1.0)
    fleet.apply(NodeFailed(N, NodeUnavailable("cannot reach it")), 1.1)
    ask(fleet, A, "one", 1.2)

    assert answers(fleet.tick(10.0)) == {}
    ended = answers(fleet.tick(16.2))["one"]

    assert isinstance(ended, Rejected)
    assert ended.error.code == "node_unavailable"
    assert "cannot reach it" in ended.error.message


def test_a_drained_node_gets_nothing_new() -> None:
    fleet = dispatcher_of("n", "m")
    fleet.apply(polled("n", node_model(A)), 0.0)
    fleet.apply(polled("m", node_model(A, "unloaded")), 0.0)
    fleet.apply(Cordoned(N, on=True), 1.0)

    effects = ask(fleet, A, "one", 1.1)

    assert [load.load.node for load in loads(effects)] == ["m"]
