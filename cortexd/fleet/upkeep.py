"""What is done without being asked for: replicas kept ready, or too long; worn devices. Pure."""

from collections.abc import Iterator

from cortex_core.ids import DeviceName, ModelId, NodeName, ReplicaId
from cortexd.fleet.catalogue import Catalogue
from cortexd.fleet.decisions import Load, RouteRequest
from cortexd.fleet.placement import IDLE_STATES, Placement
from cortexd.fleet.records import PRESENT, Node, Replica
from cortexd.fleet.state import FleetState

UNUSED_S = 300.0
"""A device that nobody has used for so long is likely not to be missed for the next seconds."""


class Upkeep:
    """What the catalogue wants done by itself, over one state at one time."""

    def __init__(
        self, state: FleetState, catalogue: Catalogue, placement: Placement, *, now: float
    ) -> None:
        self._state = state
        self._catalogue = catalogue
        self._placement = placement
        self._now = now

    def outlived(self) -> Iterator[ReplicaId]:
        """Yield idle replicas that nobody used for their model's `ttl_s`."""
        for replica in list(self._state.replicas.values()):
            ttl_s = self._catalogue.entry(replica.model.id).ttl_s
            if ttl_s is None or self._now - replica.last_used_at < ttl_s:
                continue
            if replica.ready and self._placement.may_go(replica):
                yield replica.id

    def worn(self, cycles: int) -> Iterator[tuple[NodeName, DeviceName]]:
        """Yield devices that models left `cycles` times and that nobody uses; one for each node.

        To give such a device a new process costs nobody: what is loaded there comes back before
        it is likely to be asked for.
        """
        for node in self._state.nodes.values():
            if node.usable and not self._state.is_settling(node.name):
                worn = (d for d, count in node.cycles.items() if count >= cycles)
                found = next((d for d in worn if self._may_restart(node, d)), None)
                if found is not None:
                    yield node.name, found

    def _may_restart(self, node: Node, device: DeviceName) -> bool:
        ready = node.device_ready.get(device, False)
        due = self._now >= node.restart_not_before.get(device, self._now)
        return ready and due and all(map(self._is_unused, self._state.on_device(node, device)))

    def _is_unused(self, replica: Replica) -> bool:
        long_ago = self._now - replica.last_used_at >= UNUSED_S
        return long_ago and replica.model.status in IDLE_STATES and self._placement.is_idle(replica)

    def wanted(self) -> Iterator[tuple[ModelId, Load]]:
        """Yield loads into free memory that bring models up to their `min_replicas`."""
        for model_id in self._catalogue.configured():
            there = sum(r.model.status in PRESENT for r in self._state.replicas_of(model_id))
            if there >= self._catalogue.entry(model_id).min_replicas:
                continue
            request = RouteRequest(model_id)
            if self._placement.loading(request) is None:
                load = self._placement.into_free(request)
                if load is not None:
                    yield model_id, load
