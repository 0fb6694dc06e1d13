"""Replicas that nobody asked for just now: those kept ready, and those kept too long. Pure."""

from collections.abc import Iterator

from cortex_core.ids import ModelId, ReplicaId
from cortexd.fleet.catalogue import Catalogue
from cortexd.fleet.decisions import Load, RouteRequest
from cortexd.fleet.placement import Placement
from cortexd.fleet.records import PRESENT
from cortexd.fleet.state import FleetState


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
