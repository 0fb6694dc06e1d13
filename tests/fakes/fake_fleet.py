"""A fleet and nodes in memory, for the gateway's own decisions. No sockets, no clock."""

from collections.abc import AsyncGenerator, Callable

from cortex_core.canonical import Event, GenerateRequest, Loading
from cortex_core.errors import CortexError, ErrorInfo, ModelNotFound, Overloaded
from cortex_core.ids import ModelId, NodeName, ReplicaId, RequestId
from cortex_core.ipc.counters import CounterRow, CounterTable, counter_segment_bytes
from cortex_core.ipc.segment import Segment
from cortexd.fleet.client import Lease
from cortexd.fleet.layout import IN_FLIGHT_COLUMNS
from cortexd.fleet.protocol import ReplicaView

MODEL = ModelId("fake:m")


def replica(name: str, column: int) -> ReplicaView:
    node = NodeName(name)
    endpoint = f"http://{name}"
    return ReplicaView(ReplicaId(f"{name}/{MODEL}"), MODEL, node, endpoint, "ready", column, 8)


class FakeFleet:
    """Gives out the replicas that the request did not fail on, in order, then `error`."""

    def __init__(self, *names: str, loading: int = 0) -> None:
        self.replicas = [replica(name, column) for column, name in enumerate(names)]
        self.error: CortexError | None = None
        self.reported: list[tuple[ReplicaId, ErrorInfo]] = []
        self.full: list[tuple[ReplicaId, float | None]] = []
        self.max_wait_s = 120.0
        self.given_up = 0
        self.can: tuple[str, ...] = ()
        self._loading = loading
        self._segment = Segment.create("counts", counter_segment_bytes(1, IN_FLIGHT_COLUMNS))
        self._table = CounterTable(self._segment, IN_FLIGHT_COLUMNS)

    @property
    def row(self) -> CounterRow:
        return self._table.row(0)

    def in_flight(self) -> int:
        return sum(self._table.sum(one.column) for one in self.replicas)

    def close(self) -> None:
        self._segment.close()

    def resolve(self, text: str) -> ModelId:
        if text not in ("m", MODEL):
            raise ModelNotFound(f"cannot find model {text!r}", param="model")
        return MODEL

    def capabilities(self, _model_id: ModelId) -> tuple[str, ...]:
        return self.can

    async def acquire(
        self,
        model_id: ModelId,
        request_id: RequestId,
        *,
        priority: int = 0,
        principal: str | None = None,
        failed_on: tuple[ReplicaId, ...] = (),
        waited_s: float = 0.0,
    ) -> AsyncGenerator[Loading | Lease, None]:
        try:
            for step in range(self._loading):
                yield Loading("loading", progress=step / self._loading)
        except GeneratorExit:
            self.given_up += 1
            raise
        if self.error is not None:
            raise self.error
        if waited_s >= self.max_wait_s:
            raise Overloaded("cannot place the request: it waited too long", retry_after_s=5.0)
        fresh = [one for one in self.replicas if one.id not in failed_on]
        yield Lease((fresh or self.replicas)[0], self.row)

    def report_failure(self, replica_id: ReplicaId, error: ErrorInfo) -> None:
        self.reported.append((replica_id, error))

    def report_full(self, replica_id: ReplicaId, retry_after_s: float | None) -> None:
        self.full.append((replica_id, retry_after_s))


Says = Callable[[GenerateRequest], list[Event | CortexError]]


class FakeNodes:
    """What each node says, by its name: events in order, and an error to raise among them."""

    def __init__(self, **says: Says) -> None:
        self._says = says
        self.asked: list[tuple[str, GenerateRequest]] = []
        self.closed: list[str] = []

    async def generate(
        self, endpoint: str, request: GenerateRequest
    ) -> AsyncGenerator[Event, None]:
        name = endpoint.removeprefix("http://")
        self.asked.append((name, request))
        try:
            for said in self._says[name](request):
                if isinstance(said, CortexError):
                    raise said
                yield said
        finally:
            self.closed.append(name)
