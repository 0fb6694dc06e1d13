"""The fleet as an HTTP worker sees it: routes by itself what it can, asks the actor for the rest.

Lives on the worker's event loop. Holds one message path to the fleet actor and this worker's own
row of the in-flight table; nobody else writes that row.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

import msgspec

from cortex_core.canonical import Loading
from cortex_core.errors import (
    CortexError,
    ErrorInfo,
    NodeUnavailable,
    Overloaded,
    error_from_info,
)
from cortex_core.ids import ModelId, ReplicaId, RequestId
from cortex_core.ipc.counters import CounterRow, CounterTable
from cortex_core.ipc.fence import Fence
from cortex_core.ipc.snapshot import SnapshotReader
from cortex_core.logs import kv
from cortexd.fleet.decisions import RouteRequest, RouteTo
from cortexd.fleet.index import FleetIndex
from cortexd.fleet.layout import started_column
from cortexd.fleet.protocol import (
    Acquire,
    AcquireProgress,
    CancelAcquire,
    FleetSnapshot,
    Granted,
    GrantTaken,
    Rejected,
    ReplicaView,
    ReportFailure,
    ReportFull,
    ToActor,
    ToWorker,
)
from cortexd.fleet.router import Router

log = logging.getLogger(__name__)

LOOK_S = 0.01
"""Between two looks for a first snapshot."""
QUIET_S = 0.5
"""A waiting caller hears something at least this often, also while the actor is silent."""
RESEND_S = 1.6
"""Silence of the actor after which a request is put to it again; it answers twice a second."""
GIVE_UP_S = 30.0
"""Silence of the actor after which a waiting request fails."""

EMPTY_SNAPSHOT = FleetSnapshot(version=0, models=(), nodes=(), replicas=(), aliases={})


class ActorLink(Protocol):
    """Way to the fleet actor. Non-blocking; raises `CortexError` where its buffer is full."""

    def send(self, message: ToActor) -> None: ...


class Lease:
    """A place on a replica, counted in this worker's row until released."""

    def __init__(self, replica: ReplicaView, row: CounterRow) -> None:
        self.replica = replica
        self._row: CounterRow | None = row
        row.increment(replica.column)
        row.increment(started_column(replica.column))

    def release(self) -> None:
        """Give the place back. Idempotent."""
        row, self._row = self._row, None
        if row is not None:
            row.decrement(self.replica.column)


class FleetClient:
    """Finds a replica for each request of this worker."""

    def __init__(
        self,
        snapshot: SnapshotReader,
        in_flight: CounterTable,
        row: int,
        link: ActorLink,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._reader = snapshot
        self._table = in_flight
        self._row = in_flight.row(row)
        self._link = link
        self._clock = clock
        self._index = FleetIndex(EMPTY_SNAPSHOT)
        self._seen: int | None = None
        self._fence = Fence()
        self._router = Router()
        self._waiting: dict[RequestId, _Waiting] = {}

    async def until_known(self, timeout_s: float) -> None:
        """Return once there is a first snapshot, or after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    if self._reader.version():
                        return
                    await asyncio.sleep(LOOK_S)

    def snapshot(self) -> FleetSnapshot:
        """Return the newest snapshot; decoded once for each version."""
        return self.index().snapshot

    def index(self) -> FleetIndex:
        """Return the newest snapshot with its lookups."""
        if self._reader.version() != self._seen:
            found = self._reader.read()
            if found is not None:
                self._seen, payload = found
                self._index = FleetIndex(msgspec.msgpack.decode(payload, type=FleetSnapshot))
        return self._index

    def resolve(self, text: str) -> ModelId:
        """Return the model a client means: an alias, an id, or a name in the default scheme.

        Raises:
            ModelNotFound: nothing of that name is known; the message names what is near.
            Overloaded: the fleet actor has not written a first snapshot yet.
        """
        index = self.index()
        if self._seen is None:
            raise Overloaded("cannot find models: the fleet is starting", retry_after_s=1.0)
        return index.resolve(text)

    def capabilities(self, model_id: ModelId) -> tuple[str, ...]:
        """Return what a model can be asked for; nothing where no node knows yet."""
        model = self.index().models.get(model_id)
        return () if model is None else model.capabilities

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
        """Yield any number of `Loading`, less than a second apart, then one `Lease`.

        The lease is the caller's from then on. Closing the generator before that gives up the
        place in the queue. A model that is ready is routed without a message. `waited_s` is how
        long nodes have had no room for the request, of the time that it may wait.

        Raises:
            QueueFull: as many wait for the model as may.
            Overloaded: the wait was longer than it may be, or no node can make room.
            ModelLoadFailed, OutOfMemory, NodeUnavailable: what came of the load.
        """
        lease = self._route_here(model_id, failed_on)
        if lease is not None:
            yield lease
            return
        message = Acquire(request_id, model_id, priority, principal, failed_on, waited_s)
        waiting = self._waiting[request_id] = _Waiting(message, self._clock())
        try:
            self._link.send(message)
            async for step in self._wait(waiting):
                yield step
        finally:
            self._leave(waiting)

    def report_failure(self, replica_id: ReplicaId, error: ErrorInfo) -> None:
        """Tell the actor that a replica did not answer or broke off; it looks at once."""
        self._send(ReportFailure(replica_id, error))

    def report_full(self, replica_id: ReplicaId, retry_after_s: float | None) -> None:
        """Tell the actor that a replica's node had no room; for a while nothing goes there."""
        self._send(ReportFull(replica_id, retry_after_s))

    def on_message(self, message: ToWorker) -> None:
        """Take one message of the actor. Called on the worker's loop."""
        waiting = self._waiting.get(message.request_id)
        if waiting is None:
            # An answer that crossed the end of the request; nobody here wants the place.
            if not isinstance(message, Rejected):
                self._send(CancelAcquire(message.request_id))
            return
        waiting.heard_at = self._clock()
        match message:
            case AcquireProgress():
                waiting.loading = message.loading
            case Granted() if waiting.lease is None:
                waiting.lease = Lease(message.replica, self._row)
                self._send(GrantTaken(message.request_id))
            case Granted():
                self._send(GrantTaken(message.request_id))
            case Rejected():
                waiting.error = error_from_info(message.error)
        waiting.changed.set()

    def _route_here(self, model_id: ModelId, failed_on: tuple[ReplicaId, ...]) -> Lease | None:
        """Count first, then look again: the actor marks a replica first, then reads the counts."""
        request = RouteRequest(model_id, failed_on)
        for _ in range(3):
            index = self.index()
            decision = self._router.route(request, index, self._table.sum)
            if not isinstance(decision, RouteTo):
                return None
            lease = Lease(decision.replica, self._row)
            self._fence()
            if self._reader.version() == self._seen:
                return lease
            lease.release()
        return None

    async def _wait(self, waiting: "_Waiting") -> AsyncGenerator[Loading | Lease, None]:
        while True:
            if waiting.error is not None:
                raise waiting.error
            if waiting.lease is not None:
                lease, waiting.lease = waiting.lease, None
                waiting.settled = True
                yield lease
                return
            yield waiting.loading
            self._ask_again(waiting)
            try:
                # Not wait_for: up to Python 3.11 that loses a cancel that meets an answer.
                async with asyncio.timeout(QUIET_S):
                    await waiting.changed.wait()
            except TimeoutError:
                continue
            waiting.changed.clear()

    def _ask_again(self, waiting: "_Waiting") -> None:
        """Put the request to the actor again if that is silent: it may be a new one by now."""
        now = self._clock()
        if now - waiting.heard_at >= GIVE_UP_S:
            raise NodeUnavailable(
                f"cannot place the request: the fleet actor was silent for {GIVE_UP_S:.0f} s",
                retry_after_s=5.0,
            )
        if now - max(waiting.heard_at, waiting.asked_at) >= RESEND_S:
            waiting.asked_at = now
            self._send(waiting.message)

    def _leave(self, waiting: "_Waiting") -> None:
        self._waiting.pop(waiting.message.request_id, None)
        if waiting.lease is not None:
            waiting.lease.release()
        elif not waiting.settled and waiting.error is None:
            self._send(CancelAcquire(waiting.message.request_id))

    def _send(self, message: ToActor) -> None:
        try:
            self._link.send(message)
        except CortexError as ex:
            told = type(message).__name__
            log.warning("fleet actor not told", extra=kv(message=told, cause=ex.message))


class _Waiting:
    """One open `Acquire`."""

    def __init__(self, message: Acquire, now: float) -> None:
        self.message = message
        self.heard_at = now
        self.asked_at = now
        self.loading = Loading(stage="queued")
        self.lease: Lease | None = None
        self.error: CortexError | None = None
        self.settled = False
        self.changed = asyncio.Event()
