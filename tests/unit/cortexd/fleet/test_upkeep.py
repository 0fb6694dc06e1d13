"""What goes and what comes without being asked for."""

import pytest

from cortex_core.errors import OutOfMemory
from cortex_core.ids import ModelId, NodeName, ReplicaId
from cortexd.config import FleetConfig, ModelConfig
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.events import LoadFailed, LoadStarted, UnloadStarted
from cortexd.fleet.eviction import EvictionPolicy
from cortexd.fleet.placement import Placement
from cortexd.fleet.setbacks import Setbacks
from cortexd.fleet.upkeep import Upkeep
from tests.fakes.fleet_world import dispatcher_of, loads, node_model, polled

A = ModelId("file:a")
N = NodeName("n")
ON_N, ON_M = ReplicaId("n/file:a"), ReplicaId("m/file:a")
TTL_S = 60.0


def fleet_of(*nodes: str, **model: object) -> Dispatcher:
    """Nodes that have A loaded, last used at 0 s."""
    entry = ModelConfig(id=A, ttl_s=TTL_S, **model)  # type: ignore[arg-type] # keys of ModelConfig
    fleet = dispatcher_of(*nodes, models=(entry,))
    for node in nodes:
        fleet.apply(polled(node, node_model(A)), 0.0)
    return fleet


def upkeep(fleet: Dispatcher, now: float, *, busy: bool = False) -> Upkeep:
    placement = Placement(
        fleet.state,
        fleet.catalogue,
        EvictionPolicy("lru"),
        Setbacks(retry_s=15.0, max_attempts=5),
        busy=lambda _: busy,
        node_grace_s=FleetConfig().node_grace_s,
        now=now,
    )
    return Upkeep(fleet.state, fleet.catalogue, placement, now=now)


def outlived(fleet: Dispatcher, now: float = TTL_S, *, busy: bool = False) -> list[ReplicaId]:
    return list(upkeep(fleet, now, busy=busy).outlived())


def wanted(fleet: Dispatcher) -> list[tuple[ModelId, NodeName]]:
    return [(model, load.node) for model, load in upkeep(fleet, 0.0).wanted()]


def test_a_replica_goes_after_its_time_without_requests() -> None:
    fleet = fleet_of("n")
    assert outlived(fleet, TTL_S - 1) == []
    assert outlived(fleet) == [ON_N]


def test_a_busy_replica_stays_whatever_its_age() -> None:
    assert outlived(fleet_of("n"), 10 * TTL_S, busy=True) == []


def test_a_replica_on_its_way_out_is_not_sent_twice() -> None:
    fleet = fleet_of("n")
    fleet.apply(UnloadStarted(ON_N), 1.0)
    assert outlived(fleet) == []


def test_a_pinned_replica_stays() -> None:
    assert outlived(fleet_of("n", "m", pinned_on=(N,))) == [ON_M]


@pytest.mark.parametrize(("kept", "gone"), [(1, []), (0, [ON_N])])
def test_the_last_of_its_min_replicas_stays(kept: int, gone: list[ReplicaId]) -> None:
    assert outlived(fleet_of("n", min_replicas=kept)) == gone


def test_a_model_without_a_ttl_stays() -> None:
    fleet = dispatcher_of("n", models=(ModelConfig(id=A),))
    fleet.apply(polled("n", node_model(A)), 0.0)
    assert outlived(fleet, 1e6) == []


def test_min_replicas_are_loaded_into_free_memory_alone() -> None:
    fleet = dispatcher_of("n", "m", models=(ModelConfig(id=A, min_replicas=1, vram_mb=5000),))
    fleet.apply(polled("n", node_model("file:b", mb=9000)), 0.0)
    assert wanted(fleet) == []
    fleet.apply(polled("m"), 0.0)
    assert wanted(fleet) == [(A, "m")]


def test_a_replica_that_is_there_or_on_its_way_is_not_loaded_again() -> None:
    assert wanted(fleet_of("n", min_replicas=1)) == []
    fleet = dispatcher_of("n", models=(ModelConfig(id=A, min_replicas=1, vram_mb=5000),))
    fleet.apply(polled("n"), 0.0)
    ((model, load),) = upkeep(fleet, 0.0).wanted()
    fleet.apply(LoadStarted(model, load), 0.0)
    assert wanted(fleet) == []


def test_min_replicas_that_ran_out_of_memory_are_tried_again_after_a_while() -> None:
    fleet = dispatcher_of("n", models=(ModelConfig(id=A, min_replicas=1, vram_mb=5000),))
    fleet.apply(polled("n"), 0.0)
    assert [load.model_id for load in loads(fleet.tick(1.0))] == [A]
    fleet.apply(LoadFailed(A, N, OutOfMemory("cannot load: a desktop has the memory")), 2.0)
    fleet.apply(polled("n", version=2, at=2.0), 2.1)

    retry_at = 2.0 + FleetConfig().load_retry_s

    assert loads(fleet.tick(retry_at - 0.1)) == []
    assert [load.model_id for load in loads(fleet.tick(retry_at))] == [A]
