"""When a device gets a new process, and when that would cost somebody."""

import pytest

from cortex_core.errors import Conflict
from cortex_core.ids import DeviceName, ModelId, NodeName, ReplicaId, RequestId
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.effects import Effect, PollNow, RestartDevice
from cortexd.fleet.events import InFlightRead, LoadDone, RestartEnded, Unloaded
from cortexd.fleet.queues import Ticket
from cortexd.fleet.state import RESTART_AGAIN_S
from cortexd.fleet.upkeep import UNUSED_S
from tests.fakes.fleet_world import WORKER, answers, ask, dispatcher_of, node_model, polled

A, B = ModelId("file:a"), ModelId("file:b")
N, GPU = NodeName("n"), DeviceName("cuda-0")
CYCLES = 3
RESTART = RestartDevice(N, GPU)
LATER = UNUSED_S + 100.0


def worn(cycles: int = CYCLES, *, limit: int = CYCLES) -> Dispatcher:
    """A node on which B came and went so often, and A is loaded, last seen at 10 s."""
    fleet = dispatcher_of("n", defrag_after_cycles=limit)
    fleet.apply(polled("n", version=0), 0.0)
    for number in range(cycles):
        fleet.apply(LoadDone(B, N, node_model(B), state_version=2 * number + 1), 1.0)
        fleet.apply(Unloaded(ReplicaId("n/file:b"), state_version=2 * number + 2), 1.0)
    fleet.apply(polled("n", node_model(A), version=50, at=10.0), 10.0)
    return fleet


def restarts(effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, RestartDevice)]


def test_a_worn_device_that_nobody_uses_is_restarted_once() -> None:
    fleet = worn()

    assert restarts(fleet.tick(LATER)) == [RESTART]
    assert fleet.state.replicas[ReplicaId("n/file:a")].model.status == "loading"
    assert PollNow(N) in fleet.apply(RestartEnded(N, GPU), LATER + 1)
    fleet.apply(polled("n", node_model(A), version=60, at=LATER + 2), LATER + 2)

    assert restarts(fleet.tick(LATER + 2 * RESTART_AGAIN_S)) == []


def test_an_empty_device_is_not_waited_for() -> None:
    fleet = worn()
    fleet.apply(polled("n", version=51, at=11.0), 11.0)

    assert restarts(fleet.tick(12.0)) == [RESTART]


@pytest.mark.parametrize(("cycles", "limit"), [(CYCLES - 1, CYCLES), (CYCLES, 0)])
def test_too_few_cycles_or_none_wanted(cycles: int, limit: int) -> None:
    assert restarts(worn(cycles, limit=limit).tick(LATER)) == []


def test_a_model_that_was_used_lately_is_let_be() -> None:
    assert restarts(worn().tick(10.0 + UNUSED_S - 1)) == []


def test_a_busy_device_is_let_be() -> None:
    fleet = worn()
    column = fleet.state.replicas[ReplicaId("n/file:a")].column
    assert column is not None
    fleet.count(InFlightRead({column: 1}, {column: 1}), LATER)
    assert restarts(fleet.tick(LATER)) == []


def test_a_model_that_another_gateway_uses_is_let_be() -> None:
    fleet = worn()
    fleet.apply(polled("n", node_model(A, running=1), version=51, at=11.0), 11.0)
    assert restarts(fleet.tick(LATER)) == []


def test_nothing_is_restarted_while_anybody_waits() -> None:
    fleet = worn()
    assert answers(ask(fleet, B, "one", LATER)) == {}
    assert restarts(fleet.tick(LATER)) == []


def test_a_place_that_is_held_is_use() -> None:
    fleet = worn()
    assert answers(ask(fleet, A, "one", LATER))
    assert restarts(fleet.tick(LATER)) == []
    fleet.cancel(Ticket(WORKER, RequestId("one")), LATER)


def test_requests_wait_while_the_device_restarts() -> None:
    fleet = worn()
    fleet.tick(LATER)

    assert answers(ask(fleet, A, "one", LATER)) == {}
    fleet.apply(RestartEnded(N, GPU), LATER + 1)
    back = fleet.apply(polled("n", node_model(A), version=60, at=LATER + 2), LATER + 2)

    assert "one" in answers(back)


def test_a_refused_restart_is_tried_again_much_later() -> None:
    fleet = worn()
    fleet.tick(LATER)
    fleet.apply(RestartEnded(N, GPU, Conflict("cannot restart: not idle")), LATER + 1)
    fleet.apply(polled("n", node_model(A), version=60, at=LATER + 2), LATER + 2)

    assert restarts(fleet.tick(LATER + RESTART_AGAIN_S - 1)) == []
    assert restarts(fleet.tick(LATER + RESTART_AGAIN_S)) == [RESTART]


def test_a_new_boot_of_the_node_starts_to_count_anew() -> None:
    fleet = worn()
    fleet.apply(polled("n", version=1, boot="boot-1", at=20.0), 20.0)
    assert restarts(fleet.tick(LATER)) == []
