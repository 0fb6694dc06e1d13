"""Where a request goes. Pure; the same class runs in every HTTP worker and in the fleet actor.

The decision tree, numbered as in the code:

1. A ready replica has room: `RouteTo` the least busy one. One that the request failed on before
   is taken only by the actor, which has looked at it since.
2. The model is being loaded: `Wait`.
3. A replica is asleep: `Load` there, which wakes it.
4. Replicas are ready but full, and there may be no more of them: `Wait`.
5. It fits into free memory of a node: `Load`.
6. There is no replica at all and it fits after eviction: `Load` with `evict`.
7. Busy memory, or a node that may come back, is in the way: `Wait`.
8. Nothing will change by itself: `Reject`.

A worker has no `Planner`: it knows step 1 alone, and asks the actor wherever that says `Wait`.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from cortexd.fleet.decisions import Decision, Load, Reject, RouteRequest, RouteTo, Wait
from cortexd.fleet.index import FleetIndex
from cortexd.fleet.protocol import ReplicaView

InFlight = Callable[[int], int]
"""Requests in flight on the replica with this column."""


class Planner(Protocol):
    """What the router asks about memory. See `cortexd.fleet.placement`."""

    def loading(self, request: RouteRequest) -> Wait | None:
        """Return a wait if the model is on its way already."""

    def wake(self, request: RouteRequest) -> Load | None:
        """Return the load that wakes a sleeping replica."""

    def may_grow(self, request: RouteRequest) -> bool:
        """Say whether one more replica of the model is allowed."""

    def has_replica(self, request: RouteRequest) -> bool:
        """Say whether a replica holds memory that the request could use, now or soon."""

    def into_free(self, request: RouteRequest) -> Load | None:
        """Return a load that evicts nothing."""

    def with_eviction(self, request: RouteRequest) -> Load | None:
        """Return a load that evicts idle replicas."""

    def obstacle(self, request: RouteRequest) -> Wait | Reject:
        """Say why nothing of the above is possible, and whether to wait for it."""


class Router:
    """Decides for one request at a time; keeps nothing."""

    def __init__(self, planner: Planner | None = None) -> None:
        self._planner = planner

    def route(self, request: RouteRequest, index: FleetIndex, in_flight: InFlight) -> Decision:
        """Return what to do with `request`. See the module's text for the order."""
        ready = [r for r in index.replicas_of(request.model_id) if _takes(r, request)]
        fresh = [r for r in ready if r.id not in request.failed_on]
        model = index.models.get(request.model_id)
        if self._planner is None and model is not None and model.queued:
            return Wait()  # behind those that wait in the actor
        best = _least_busy(fresh, in_flight)
        if best is not None:
            return RouteTo(best)  # 1
        if self._planner is None:
            return Wait()  # for what the actor decides
        return self._make_room(self._planner, request, ready, in_flight)

    def _make_room(
        self,
        planner: Planner,
        request: RouteRequest,
        ready: list[ReplicaView],
        in_flight: InFlight,
    ) -> Decision:
        again = _least_busy(ready, in_flight)
        if again is not None:
            return RouteTo(again)  # 1
        on_its_way = planner.loading(request) or planner.wake(request)
        if on_its_way is not None:
            return on_its_way  # 2, 3
        present = planner.has_replica(request)
        if present and not planner.may_grow(request):
            return Wait()  # 4
        load = planner.into_free(request)
        if load is not None:
            return load  # 5
        if present:
            return Wait()  # 4
        return planner.with_eviction(request) or planner.obstacle(request)  # 6, 7, 8


def _takes(replica: ReplicaView, request: RouteRequest) -> bool:
    if request.only_node is not None and replica.node != request.only_node:
        return False
    return replica.status == "ready" and replica.servable and not replica.full


def _least_busy(replicas: Iterable[ReplicaView], in_flight: InFlight) -> ReplicaView | None:
    """Return the replica with the smallest share of its places taken, if one has a place."""
    best: ReplicaView | None = None
    best_share = 1.0
    for replica in replicas:
        share = in_flight(replica.column) / replica.max_in_flight
        if share < best_share:
            best, best_share = replica, share
    return best
