"""What serving a request of any kind has in common: its model, a place on a replica, the drain."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Generic, Protocol, TypeVar

from cortex_core.canonical import Loading
from cortex_core.capabilities import Ability, require_ability
from cortex_core.errors import CortexError, ErrorInfo, ShuttingDown
from cortex_core.ids import ModelId, ReplicaId, RequestId
from cortexd.continuation import has_no_room, is_replicas_fault
from cortexd.drain import Drain
from cortexd.fleet.client import Lease
from cortexd.metrics import GatewayMetrics
from cortexd.request_record import RequestRecord

DRAIN_RETRY_AFTER_S = 15.0
NodesT = TypeVar("NodesT")


class Fleet(Protocol):
    """What the gateway asks of `cortexd.fleet.client.FleetClient`."""

    def resolve(self, text: str) -> ModelId: ...

    def capabilities(self, model_id: ModelId) -> tuple[str, ...]: ...

    def acquire(
        self,
        model_id: ModelId,
        request_id: RequestId,
        *,
        priority: int = 0,
        principal: str | None = None,
        failed_on: tuple[ReplicaId, ...] = (),
        waited_s: float = 0.0,
    ) -> AsyncGenerator[Loading | Lease, None]: ...

    def report_failure(self, replica_id: ReplicaId, error: ErrorInfo) -> None: ...

    def report_full(self, replica_id: ReplicaId, retry_after_s: float | None) -> None: ...


class RequestGateway(Generic[NodesT]):
    """Base of what serves one kind of request. Lives on one worker's event loop."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        nodes: NodesT,
        metrics: GatewayMetrics,
        drain: Drain,
        clock: Callable[[], float],
    ) -> None:
        self._fleet = fleet
        self._nodes = nodes
        self._metrics = metrics
        self._drain = drain
        self._clock = clock

    def refused(self, error: CortexError) -> None:
        """Count a request that was never begun, because of `error`."""
        self._metrics.count_refused(error.code)

    def _find_model(self, name: str, ability: Ability) -> ModelId:
        """Return the model that a client means.

        Raises:
            ShuttingDown: no new work is taken.
            ModelNotFound: nothing has that name.
            InvalidRequest: the model is known to lack `ability`.
        """
        if self._drain.begun:
            raise _shutting_down()
        model_id = self._fleet.resolve(name)
        require_ability(model_id, self._fleet.capabilities(model_id), ability)
        return model_id

    def _record(self, request_id: RequestId, model_id: ModelId, path: str) -> RequestRecord:
        return RequestRecord(
            self._metrics, self._clock, request_id=request_id, path=path, model=model_id
        )

    async def _place(
        self,
        model_id: ModelId,
        request_id: RequestId,
        *,
        priority: int = 0,
        principal: str | None,
        failed_on: tuple[ReplicaId, ...],
        waited_s: float,
    ) -> AsyncGenerator[Loading | Lease, None]:
        """Do as `Fleet.acquire`, until the drain is over."""
        acquiring = self._fleet.acquire(
            model_id,
            request_id,
            priority=priority,
            principal=principal,
            failed_on=failed_on,
            waited_s=waited_s,
        )
        async with aclosing(acquiring) as steps:
            async for step in steps:
                if not isinstance(step, Lease):
                    self._check_drain()
                yield step

    def _check_drain(self) -> None:
        """Raise `ShuttingDown` for what still runs when the drain is over."""
        if self._drain.expired:
            raise _shutting_down()

    def _tell_of(self, error: CortexError, replica_id: ReplicaId) -> None:
        """Have the fleet look at a replica whose fault an error is, and spare one that is full.

        Raises:
            ShuttingDown: the drain is over; nothing goes on elsewhere.
        """
        self._check_drain()
        if is_replicas_fault(error):
            self._fleet.report_failure(replica_id, error.info())
        elif has_no_room(error):
            self._fleet.report_full(replica_id, error.retry_after_s)


def _shutting_down() -> ShuttingDown:
    return ShuttingDown(
        "cannot serve the request: the gateway is shutting down", retry_after_s=DRAIN_RETRY_AFTER_S
    )
