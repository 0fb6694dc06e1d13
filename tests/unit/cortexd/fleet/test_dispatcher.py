"""Queues and loads, event by event."""

from cortex_core.errors import Conflict, ModelLoadFailed, OutOfMemory
from cortex_core.ids import ModelId, NodeName, ReplicaId, RequestId
from cortexd.fleet.effects import ColdStart, Effect, PollNow, Tell
from cortexd.fleet.events import (
    InFlightRead,
    LoadDone,
    LoadFailed,
    Unloaded,
)
from cortexd.fleet.holds import HOLD_S
from cortexd.fleet.protocol import AcquireProgress, Granted, Rejected
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


def test_a_ready_model_is_granted_and_the_place_is_held() -> None:
    fleet = dispatcher_of("n", max_in_flight=1)
    fleet.apply(polled("n", node_model(A)), 0.0)

    first = answers(ask(fleet, A, "one", 1.0))
    second = answers(ask(fleet, A, "two", 1.0))

    assert isinstance(first["one"], Granted)
    assert second == {}
    assert fleet.queues.depth(A) == 1


def test_a_place_that_nobody_took_is_given_to_the_next() -> None:
    fleet = dispatcher_of("n", max_in_flight=1)
    fleet.apply(polled("n", node_model(A)), 0.0)
    ask(fleet, A, "one", 1.0)
    ask(fleet, A, "two", 1.0)

    assert answers(fleet.tick(1.0 + HOLD_S / 2)) == {}
    assert "two" in answers(fleet.tick(1.0 + HOLD_S))


def test_a_released_place_is_given_to_the_next_in_turn() -> None:
    fleet = dispatcher_of("n", max_in_flight=1)
    fleet.apply(polled("n", node_model(A)), 0.0)
    granted = answers(ask(fleet, A, "one", 1.0))["one"]
    assert isinstance(granted, Granted)
    fleet.taken(Ticket(WORKER, RequestId("one")), 1.0)
    column = granted.replica.column
    fleet.count(InFlightRead({column: 1}, {column: 1}), 1.1)
    ask(fleet, A, "two", 1.2)
    ask(fleet, A, "urgent", 1.3, priority=5)
    ask(fleet, A, "three", 1.4)

    fleet.count(InFlightRead({column: 0}, {column: 1}), 2.0)

    assert list(answers(fleet.tick(2.0))) == ["urgent"]


def test_requests_wait_for_a_device_that_is_starting_and_not_for_one_that_failed() -> None:
    fleet = dispatcher_of("n")
    cold = node_model(A, "unloaded")
    fleet.apply(polled("n", cold, devices_are="starting"), 0.0)
    assert answers(ask(fleet, A, "early", 0.5)) == {}

    up = fleet.apply(polled("n", cold, version=2, at=1.0), 1.0)
    assert [load.model_id for load in loads(up)] == [A]

    broken = dispatcher_of("n")
    broken.apply(polled("n", cold, devices_are="failed"), 0.0)
    (answer,) = answers(ask(broken, A, "late", 0.5)).values()
    assert isinstance(answer, Rejected)
    assert "no device is ready" in answer.error.message


def test_a_cold_model_is_loaded_once_for_all_who_wait() -> None:
    fleet = dispatcher_of("n")
    fleet.apply(polled("n", node_model(A, "unloaded")), 0.0)

    effects = ask(fleet, A, "one", 1.0) + ask(fleet, A, "two", 1.1)
    done = fleet.apply(LoadDone(A, N, node_model(A), state_version=3), 5.0)

    assert [load.model_id for load in loads(effects)] == [A]
    assert effects_of(ColdStart, effects) == []
    assert effects_of(ColdStart, done) == [ColdStart(A, N)]
    assert set(answers(done)) == {"one", "two"}


def test_a_load_that_comes_to_nothing_is_no_cold_start() -> None:
    fleet = dispatcher_of("n")
    cold = node_model(A, "unloaded")
    fleet.apply(polled("n", cold), 0.0)
    effects = ask(fleet, A, "one", 1.0)
    effects += fleet.apply(LoadFailed(A, N, Conflict("moved on")), 2.0)
    effects += fleet.apply(polled("n", cold, version=2, at=2.0), 2.1)
    assert len(loads(effects)) == 2
    assert effects_of(ColdStart, effects) == []

    done = fleet.apply(LoadDone(A, N, node_model(A), state_version=3), 5.0)

    assert effects_of(ColdStart, done) == [ColdStart(A, N)]


def test_waiters_hear_at_once_and_again() -> None:
    fleet = dispatcher_of("n")
    fleet.apply(polled("n", node_model(A, "unloaded")), 0.0)

    first = ask(fleet, A, "one", 1.0)
    again = fleet.tick(1.9)

    assert sum(_is_progress(effect) for effect in first) == 1
    assert sum(_is_progress(effect) for effect in again) == 1


def test_a_cancelled_waiter_triggers_nothing() -> None:
    fleet = dispatcher_of("n")
    ask(fleet, A, "one", 0.5)
    fleet.cancel(Ticket(WORKER, RequestId("one")), 0.6)

    effects = fleet.apply(polled("n", node_model(A, "unloaded")), 1.0) + fleet.tick(2.0)

    assert loads(effects) == []
    assert answers(effects) == {}


def test_a_dead_worker_triggers_nothing() -> None:
    fleet = dispatcher_of("n")
    ask(fleet, A, "one", 0.5)
    fleet.origin_gone(WORKER, 0.6)

    assert loads(fleet.apply(polled("n", node_model(A, "unloaded")), 1.0)) == []


def test_a_request_that_comes_again_is_answered_again() -> None:
    fleet = dispatcher_of("n")
    fleet.apply(polled("n", node_model(A)), 0.0)
    first = answers(ask(fleet, A, "one", 1.0))

    again = answers(ask(fleet, A, "one", 1.5))

    assert again == first
    assert fleet.in_flight(first["one"].replica.column) == 1


def test_a_full_queue_refuses_with_retry_after() -> None:
    fleet = dispatcher_of("n", max_queue_depth=1)
    ask(fleet, A, "one", 0.0)

    refused = answers(ask(fleet, A, "two", 0.0))["two"]

    assert isinstance(refused, Rejected)
    assert refused.error.code == "queue_full"
    assert refused.error.retry_after_s


def test_a_wait_that_is_over_ends_with_retry_after() -> None:
    fleet = dispatcher_of("n", max_in_flight=1, max_wait_s=10.0)
    fleet.apply(polled("n", node_model(A)), 0.0)
    ask(fleet, A, "one", 0.0)
    fleet.count(InFlightRead({0: 1}, {0: 1}), 0.1)
    ask(fleet, A, "two", 0.0)

    assert answers(fleet.tick(9.0)) == {}
    ended = answers(fleet.tick(10.0))["two"]

    assert isinstance(ended, Rejected)
    assert (ended.error.code, bool(ended.error.retry_after_s)) == ("service_unavailable", True)


def test_the_time_a_model_is_loading_does_not_count_as_waiting() -> None:
    fleet = dispatcher_of("n", max_wait_s=10.0)
    fleet.apply(polled("n", node_model(A, "unloaded")), 0.0)
    ask(fleet, A, "one", 0.0)
    fleet.tick(9.0)

    assert answers(fleet.tick(60.0)) == {}
    assert "one" in answers(fleet.apply(LoadDone(A, N, node_model(A), 3), 61.0))


def test_a_stale_decision_is_made_again_after_a_poll() -> None:
    fleet = dispatcher_of("n")
    fleet.apply(polled("n", node_model(A, "unloaded"), version=4), 0.0)
    ask(fleet, A, "one", 1.0)

    refused = fleet.apply(LoadFailed(A, N, Conflict("moved on")), 2.0)
    assert PollNow(N) in refused
    assert loads(refused) == []
    decided = fleet.apply(polled("n", node_model(A, "unloaded"), version=7, at=2.0), 2.1)

    assert [load.load.state_version for load in loads(decided)] == [7]


def test_a_poll_from_before_the_conflict_decides_nothing() -> None:
    fleet = dispatcher_of("n")
    fleet.apply(polled("n", node_model(A, "unloaded"), version=4), 0.0)
    ask(fleet, A, "one", 1.0)
    fleet.apply(LoadFailed(A, N, Conflict("moved on")), 2.0)

    late = fleet.apply(polled("n", node_model(A, "unloaded"), version=4, at=1.9), 2.1)

    assert loads(late) == []


def test_decisions_in_a_row_are_bounded() -> None:
    fleet = dispatcher_of("n")
    fleet.apply(polled("n", node_model(A, "unloaded")), 0.0)
    effects = ask(fleet, A, "one", 0.0)
    attempts = 0
    while started := loads(effects):
        attempts += len(started)
        now = float(attempts)
        fleet.apply(LoadFailed(A, N, Conflict("moved on")), now)
        effects = fleet.apply(
            polled("n", node_model(A, "unloaded"), version=attempts + 1, at=now), now
        )

    assert attempts == 5
    assert isinstance(answers(effects)["one"], Rejected)


def test_out_of_memory_evicts_once_and_then_gives_up() -> None:
    fleet = dispatcher_of("n")
    idle = node_model(B, mb=2000)
    fleet.apply(polled("n", idle, node_model(A, "unloaded")), 0.0)
    assert loads(ask(fleet, A, "one", 100.0))[0].load.evict == ()

    fleet.apply(LoadFailed(A, N, OutOfMemory("too little")), 101.0)
    retried = fleet.apply(polled("n", idle, node_model(A, "unloaded"), version=2, at=101.0), 101.1)
    assert loads(retried)[0].load.evict == (ReplicaId("n/file:b"),)
    fleet.apply(Unloaded(ReplicaId("n/file:b"), 3), 101.2)
    fleet.apply(LoadFailed(A, N, OutOfMemory("too little")), 102.0)
    ended = fleet.apply(polled("n", node_model(A, "unloaded"), version=4, at=102.0), 102.1)

    rejected = answers(ended)["one"]
    assert isinstance(rejected, Rejected)
    assert rejected.error.code == "out_of_memory"
    assert loads(ended) == []


def test_a_failed_load_is_tried_elsewhere_and_then_not_at_once_again() -> None:
    fleet = dispatcher_of("n", "m")
    for name in ("n", "m"):
        fleet.apply(polled(name, node_model(A, "unloaded")), 0.0)
    first = loads(ask(fleet, A, "one", 0.0))[0].load.node
    corrupt = ModelLoadFailed("cannot load file:a: the file is corrupt")

    other = loads(fleet.apply(LoadFailed(A, first, corrupt), 1.0))[0].load.node
    assert {first, other} == {"n", "m"}
    fleet.apply(LoadFailed(A, other, corrupt), 2.0)
    for name in ("n", "m"):
        fleet.apply(polled(name, node_model(A, "unloaded"), version=2, at=2.0), 2.1)
    late = answers(ask(fleet, A, "two", 3.0))["two"]

    assert isinstance(late, Rejected)
    assert late.error.code == "model_load_failed"
    assert late.error.retry_after_s


def effects_of(kind: type, effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


def _is_progress(effect: object) -> bool:
    return isinstance(effect, Tell) and isinstance(effect.message, AcquireProgress)
