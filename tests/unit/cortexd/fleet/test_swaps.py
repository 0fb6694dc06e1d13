"""Models that share memory take turns, and are loaded and unloaded where nobody asked."""

from cortex_core.ids import ModelId, NodeName, ReplicaId, RequestId
from cortexd.config import ModelConfig
from cortexd.fleet.effects import ColdStart, StartUnload
from cortexd.fleet.events import (
    InFlightRead,
    LoadDone,
    Unloaded,
)
from cortexd.fleet.protocol import Granted
from cortexd.fleet.queues import Ticket
from tests.fakes.fleet_world import (
    WORKER,
    answers,
    ask,
    dispatcher_of,
    loads,
    node_model,
    polled,
)

A, B = ModelId("file:a"), ModelId("file:b")
N = NodeName("n")


def test_a_busy_model_keeps_its_memory_until_its_turn_is_over() -> None:
    fleet = dispatcher_of("n", collate_s=20.0)
    models = (node_model(A, mb=8000), node_model(B, "unloaded", mb=8000))
    fleet.apply(polled("n", *models), 0.0)
    fleet.count(InFlightRead({0: 1}, {0: 1}), 30.0)

    assert loads(ask(fleet, B, "b", 30.0)) == []
    assert loads(fleet.tick(49.0)) == []
    assert isinstance(answers(ask(fleet, A, "a-early", 49.0))["a-early"], Granted)

    fleet.taken(Ticket(WORKER, RequestId("a-early")), 49.0)
    fleet.tick(50.0)
    assert answers(ask(fleet, A, "a-late", 50.1)) == {}, "it yields: new requests queue"
    fleet.count(InFlightRead({0: 0}, {0: 2}), 51.0)
    swap = loads(fleet.tick(51.0))

    assert [(load.model_id, load.load.evict) for load in swap] == [(B, ("n/file:a",))]


def test_a_model_that_yields_goes_on_when_nobody_wants_its_memory_any_more() -> None:
    fleet = dispatcher_of("n", collate_s=0.0)
    models = (node_model(A, mb=8000), node_model(B, "unloaded", mb=8000))
    fleet.apply(polled("n", *models), 0.0)
    fleet.count(InFlightRead({0: 1}, {0: 1}), 1.0)
    ask(fleet, B, "b", 1.0)
    ask(fleet, A, "a", 1.1)

    effects = fleet.cancel(Ticket(WORKER, RequestId("b")), 2.0)

    assert isinstance(answers(effects)["a"], Granted)


def test_a_model_just_loaded_serves_who_waited_before_it_gives_way() -> None:
    fleet = dispatcher_of("n", collate_s=20.0)
    cold_b = node_model(B, "unloaded", mb=8000)
    fleet.apply(polled("n", node_model(A, mb=8000), cold_b), 0.0)
    swap = loads(ask(fleet, B, "b1", 50.0))
    ask(fleet, A, "a", 50.1)
    ask(fleet, B, "b2", 50.2)
    fleet.apply(Unloaded(ReplicaId("n/file:a"), 2), 51.0)

    done = fleet.apply(LoadDone(B, N, node_model(B, mb=8000), 3), 100.0)
    cold_a = node_model(A, "unloaded", mb=8000)
    fleet.apply(polled("n", cold_a, node_model(B, mb=8000), version=3, at=100.0), 100.1)
    fleet.taken(Ticket(WORKER, RequestId("b1")), 100.2)
    fleet.taken(Ticket(WORKER, RequestId("b2")), 100.2)
    fleet.count(InFlightRead({0: 0, 1: 0}, {0: 0, 1: 2}), 101.0)

    assert [load.load.evict for load in swap] == [("n/file:a",)]
    assert set(answers(done)) == {"b1", "b2"}
    assert loads(fleet.tick(101.1)) == [], "its next request may be on the way"
    assert [load.load.evict for load in loads(fleet.tick(101.6))] == [("n/file:b",)]


def test_an_idle_model_is_unloaded_after_its_ttl() -> None:
    fleet = dispatcher_of("n", models=(ModelConfig(id=A, ttl_s=60.0),))
    fleet.apply(polled("n", node_model(A), node_model(B)), 0.0)
    fleet.count(InFlightRead({0: 0}, {0: 1}), 30.0)

    assert [e for e in fleet.tick(89.0) if isinstance(e, StartUnload)] == []
    assert StartUnload(ReplicaId("n/file:a")) in fleet.tick(90.0)
    assert [e for e in fleet.tick(90.1) if isinstance(e, StartUnload)] == []


def test_a_model_that_another_gateway_uses_is_not_idle() -> None:
    fleet = dispatcher_of("n", models=(ModelConfig(id=A, ttl_s=60.0),))
    wanted = node_model(B, "unloaded", mb=6000)
    fleet.apply(polled("n", node_model(A, mb=6000, running=1), wanted), 0.0)
    waiting = ask(fleet, B, "one", 1.0)
    fleet.apply(polled("n", node_model(A, mb=6000, waiting=1), wanted, at=2.0), 2.0)
    waiting += fleet.tick(3.0)

    idle = fleet.apply(polled("n", node_model(A, mb=6000), wanted, at=4.0), 4.0)

    assert loads(waiting) == []
    assert [load.load.evict for load in loads(idle)] == [("n/file:a",)]


def test_a_model_that_another_gateway_uses_yields_after_its_turn() -> None:
    fleet = dispatcher_of("n", collate_s=20.0)
    used = node_model(A, mb=6000, running=1)
    fleet.apply(polled("n", used, node_model(B, "unloaded", mb=6000)), 0.0)
    ask(fleet, B, "one", 1.0)

    early = fleet.tick(20.0)
    late = fleet.tick(21.0) + fleet.tick(21.1)

    assert loads(early) == []
    assert [load.load.evict for load in loads(late)] == [("n/file:a",)]


def test_use_by_this_gateway_is_not_taken_for_anothers() -> None:
    fleet = dispatcher_of("n")
    fleet.apply(polled("n", node_model(A)), 0.0)
    fleet.count(InFlightRead({0: 2}, {0: 2}), 1.0)
    fleet.apply(polled("n", node_model(A, running=1, waiting=2), at=1.0), 1.0)

    assert fleet.state.replicas[ReplicaId("n/file:a")].elsewhere == 1


def test_models_with_min_replicas_are_loaded_without_being_asked_for() -> None:
    fleet = dispatcher_of("n", models=(ModelConfig(id=A, min_replicas=1),))
    fleet.apply(polled("n", node_model(A, "unloaded")), 0.0)

    effects = fleet.tick(1.0)

    assert [load.model_id for load in loads(effects)] == [A]
    assert loads(fleet.tick(2.0)) == []
    done = fleet.apply(LoadDone(A, N, node_model(A), state_version=3), 3.0)
    assert ColdStart(A, N) not in done


def test_a_second_replica_is_loaded_into_free_memory_when_the_first_is_full() -> None:
    fleet = dispatcher_of("n", "m", models=(ModelConfig(id=A, max_replicas=2, max_in_flight=1),))
    fleet.apply(polled("n", node_model(A)), 0.0)
    fleet.apply(polled("m", node_model(A, "unloaded")), 0.0)
    ask(fleet, A, "one", 1.0)

    effects = ask(fleet, A, "two", 1.0)

    assert [(load.load.node, load.load.evict) for load in loads(effects)] == [("m", ())]
