"""What is not tried again, where, and for how long."""

import math

import pytest

from cortex_core.errors import (
    Conflict,
    CortexError,
    ModelLoadFailed,
    NodeUnavailable,
    OutOfMemory,
    ShuttingDown,
)
from cortex_core.ids import ModelId, NodeName, RequestId
from cortexd.config import FleetConfig, ModelConfig
from cortexd.fleet.events import InFlightRead, LoadFailed
from cortexd.fleet.queues import Ticket
from cortexd.fleet.records import replica_id
from cortexd.fleet.setbacks import Setback, Setbacks
from tests.fakes.fleet_world import WORKER, ask, dispatcher_of, loads, node_model, polled

A, B = ModelId("file:a"), ModelId("file:b")
N, M = NodeName("n"), NodeName("m")
BROKEN = ModelLoadFailed("cannot load file:a: the file is cut off")
NO_ROOM = OutOfMemory("cannot load file:a: 10 MB are free")


def setbacks() -> Setbacks:
    return Setbacks(retry_s=15.0, max_attempts=2)


def test_a_failed_load_keeps_that_model_from_that_node_for_a_while() -> None:
    kept = setbacks()
    kept.failed(A, N, BROKEN, 100.0)

    assert kept.on(A, N, 114.9) == Setback(BROKEN, 115.0)
    assert kept.on(A, M, 101.0) is None
    assert kept.on(B, N, 101.0) is None
    assert kept.on(A, N, 115.0) is None


def test_a_model_that_did_not_fit_may_try_once_more_with_evictions() -> None:
    kept = setbacks()
    kept.did_not_fit(A, N, NO_ROOM, 100.0, may_evict=True)

    assert kept.on(A, N, 100.0) is None
    assert kept.too_large(A, N, 7200.0) == Setback(NO_ROOM, math.inf)
    assert kept.too_large(B, N, 100.0) is None

    kept.did_not_fit(A, N, NO_ROOM, 101.0, may_evict=True)

    assert kept.on(A, N, 101.0) == Setback(NO_ROOM, 116.0)
    assert kept.too_large(A, N, 101.0) is None


def test_where_nobody_may_evict_free_memory_is_tried_again_after_a_while() -> None:
    kept = setbacks()
    kept.did_not_fit(A, N, NO_ROOM, 100.0, may_evict=False)

    kept.start_over(A)  # those who waited got a place elsewhere

    assert kept.on(A, N, 100.0) is None
    assert kept.too_large(A, N, 114.9) == Setback(NO_ROOM, 115.0)
    assert kept.too_large(A, N, 115.0) is None


@pytest.mark.parametrize(
    ("error", "may_evict", "kept_away", "too_large"),
    [
        (NO_ROOM, True, False, True),
        (NO_ROOM, False, False, True),
        (BROKEN, True, True, False),
        (Conflict("stale"), True, False, False),
        (NodeUnavailable("gone"), True, False, False),
        (ShuttingDown("it drains"), True, False, False),
    ],
)
def test_what_a_failed_load_says_about_the_next_one(
    error: CortexError, may_evict: bool, kept_away: bool, too_large: bool
) -> None:
    kept = setbacks()
    kept.load_failed(A, N, error, 100.0, may_evict=may_evict)
    assert (kept.on(A, N, 100.0) is not None) == kept_away
    assert (kept.too_large(A, N, 100.0) is not None) == too_large


def test_attempts_are_counted_by_model_until_one_succeeds() -> None:
    kept = setbacks()
    kept.tried(A)
    assert not kept.exhausted(A)
    kept.tried(A)
    assert kept.exhausted(A)
    assert not kept.exhausted(B)

    kept.loaded(A, N)

    assert not kept.exhausted(A)


def test_starting_over_forgets_what_did_not_fit_and_keeps_what_failed() -> None:
    kept = setbacks()
    kept.failed(A, N, BROKEN, 100.0)
    kept.did_not_fit(A, M, NO_ROOM, 100.0, may_evict=True)
    kept.did_not_fit(B, M, NO_ROOM, 100.0, may_evict=True)

    kept.start_over(A)

    assert kept.on(A, N, 101.0) is not None
    assert kept.too_large(A, M, 101.0) is None
    assert kept.too_large(B, M, 101.0) is not None


def test_a_load_that_succeeds_forgets_the_failure_there_alone() -> None:
    kept = setbacks()
    kept.failed(A, N, BROKEN, 100.0)
    kept.failed(A, M, BROKEN, 100.0)

    kept.loaded(A, N)

    assert kept.on(A, N, 101.0) is None
    assert kept.on(A, M, 101.0) is not None


def test_a_load_that_nobody_waits_for_any_more_evicts_nothing_later() -> None:
    fleet = dispatcher_of("n")
    idle, cold = node_model(B), node_model(A, "unloaded")
    fleet.apply(polled("n", idle, cold), 0.0)
    assert len(loads(ask(fleet, A, "left", 100.0))) == 1
    fleet.cancel(Ticket(WORKER, RequestId("left")), 100.5)
    fleet.apply(LoadFailed(A, N, NO_ROOM), 101.0)
    fleet.apply(polled("n", idle, cold, version=2, at=101.0), 101.1)

    later = loads(ask(fleet, A, "later", 7200.0))

    assert [load.load.evict for load in later] == [()]


def test_a_further_replica_that_did_not_fit_is_tried_again_while_requests_wait() -> None:
    model = ModelConfig(id=A, max_replicas=2, max_in_flight=1, max_wait_s=600.0)
    fleet = dispatcher_of("n", "m", models=(model,))
    cold = node_model(A, "unloaded")
    fleet.apply(polled("n", node_model(A)), 0.0)
    fleet.apply(polled("m", cold), 0.0)
    fleet.count(InFlightRead({0: 1}, {0: 1}), 0.5)
    assert [load.load.node for load in loads(ask(fleet, A, "one", 1.0))] == [M]
    fleet.apply(LoadFailed(A, M, NO_ROOM), 2.0)
    fleet.apply(polled("m", cold, version=2, at=2.0), 2.1)

    retry_at = 2.0 + FleetConfig().load_retry_s

    assert loads(fleet.tick(retry_at - 0.1)) == []
    assert [load.load.node for load in loads(fleet.tick(retry_at))] == [M]


def test_who_comes_while_free_memory_is_left_alone_has_others_evicted() -> None:
    fleet = dispatcher_of("n", models=(ModelConfig(id=A, min_replicas=1),))
    idle, cold = node_model(B), node_model(A, "unloaded")
    fleet.apply(polled("n", idle, cold), 0.0)
    assert [load.load.evict for load in loads(fleet.tick(1.0))] == [()]
    fleet.apply(LoadFailed(A, N, NO_ROOM), 2.0)
    fleet.apply(polled("n", idle, cold, version=2, at=2.0), 2.1)

    served = loads(ask(fleet, A, "one", 3.0))

    assert [load.load.evict for load in served] == [(replica_id(N, B),)]
