"""Carries out what the dispatcher decides: the middle of the fleet actor, on its event loop.

Everything that happens comes in here, one thing at a time: messages, outcomes, polls, ticks. For
each the dispatcher is asked, the snapshot is published if there is news, and then the effects are
carried out in order; so workers see a replica leave before its unload is begun.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Protocol, assert_never

from cortex_core.errors import InternalError, NodeUnavailable, Overloaded
from cortex_core.ids import NodeName, ReplicaId
from cortex_core.logs import kv
from cortex_core.neuron_api import LoadRequest
from cortexd.config import FleetConfig
from cortexd.fleet.board import FleetBoard
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.effects import (
    ColdStart,
    Effect,
    PollNow,
    Refused,
    RestartDevice,
    StartLoad,
    StartUnload,
    Tell,
)
from cortexd.fleet.events import FleetEvent, NodeFailed, NodePolled, Unloaded
from cortexd.fleet.layout import MAX_REPLICAS
from cortexd.fleet.loads import LoadRunner, NodeOrders, Outcome
from cortexd.fleet.metrics import FleetMetrics
from cortexd.fleet.pace import LoadingPace
from cortexd.fleet.poller import NodeQuestions, Poller
from cortexd.fleet.protocol import (
    Acquire,
    CancelAcquire,
    GrantTaken,
    ReportFailure,
    ReportFull,
    ToActor,
    ToWorker,
)
from cortexd.fleet.queues import Ticket
from cortexd.fleet.records import Node, Replica

log = logging.getLogger(__name__)

IDLE_TICK_S = 0.25
"""Between two looks at clocks and counts while nobody waits."""
BUSY_TICK_S = 0.02
"""The same while somebody waits: a place that became free is given on so fast."""

FIRST_LOOK_S = 1.0
"""For so long the last actor's snapshot stands, while not every node was heard of."""

Send = Callable[[bytes, ToWorker], None]
"""Sends to one worker. Raises `NodeUnavailable` if it is gone, `Overloaded` if it does not read."""


class NodePort(NodeQuestions, NodeOrders, Protocol):
    """Everything that is said to nodes; `cortexd.neuron_client.NeuronClient`."""


class Conductor:
    """Runs the fleet. Made and used on one event loop."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        board: FleetBoard,
        client: NodePort,
        fleet: FleetConfig,
        *,
        send: Send,
        metrics: FleetMetrics,
        clock: Callable[[], float],
        alive: Callable[[], None],
    ) -> None:
        """Put it together; `alive` is called at the start, then four times a second."""
        self.dispatcher = dispatcher
        self._board = board
        self._fleet = fleet
        self._fast_poll_s = min(fleet.loading_poll_interval_s, fleet.poll_interval_s)
        self._pace = LoadingPace(self._fast_poll_s)
        self._send = send
        self._metrics = metrics
        self._clock = clock
        self._alive = alive
        self._loads = LoadRunner(client, self, self._report)
        self._local: dict[bytes, Callable[[ToWorker], None]] = {}
        self._changed = asyncio.Event()
        self._hurry = asyncio.Event()
        self._ticking: asyncio.Task[None] | None = None
        self._unheard = set(dispatcher.state.nodes)
        self._first_look_ends = clock() + FIRST_LOOK_S
        self._without_column = 0
        self._poller = Poller(
            {node.name: node.endpoint for node in dispatcher.state.nodes.values()},
            client,
            report=self.submit,
            interval_s=self._poll_interval_s,
            timeout_s=fleet.poll_timeout_s,
            clock=clock,
        )

    def start(self) -> None:
        """Begin to poll and to tick. The first snapshot waits for the first answers."""
        self._alive()
        self._poller.start()
        self._ticking = asyncio.create_task(self._tick_forever(), name="tick")

    async def stop(self) -> None:
        """End polls, loads and ticks. Waiters hear nothing; they ask the next actor."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        await self._poller.stop()
        await self._loads.stop()

    def on_message(self, received: tuple[bytes, ToActor]) -> None:
        """Take a worker's message."""
        origin, message = received
        now = self.look()
        match message:
            case Acquire():
                effects = self.dispatcher.acquire(origin, message, now)
            case CancelAcquire():
                effects = self.dispatcher.cancel(Ticket(origin, message.request_id), now)
            case GrantTaken():
                effects = self.dispatcher.taken(Ticket(origin, message.request_id), now)
            case ReportFailure():
                cause = message.error.message
                log.warning("replica failed", extra=kv(replica=message.replica_id, cause=cause))
                effects = self.dispatcher.report_failure(message.replica_id, now)
            case ReportFull():
                self._log_full(message.replica_id)
                effects = self.dispatcher.report_full(
                    message.replica_id, message.retry_after_s, now
                )
            case _:
                assert_never(message)
        self._carry_out(effects)

    def _log_full(self, name: ReplicaId) -> None:
        """Log it once for as long as it lasts: each request that is turned away reports it."""
        replica = self.dispatcher.state.replicas.get(name)
        if replica is not None and replica.full_until is None:
            log.info("replica is full", extra=kv(replica=name))

    def submit(self, event: FleetEvent) -> None:
        """Take an event in, from the poller or from an operator."""
        now = self.look()
        if not isinstance(event, NodePolled | NodeFailed):
            self._carry_out(self.dispatcher.apply(event, now))
            return
        node = self.dispatcher.state.nodes[event.node]
        first, was_healthy = node.name in self._unheard, node.healthy
        self._unheard.discard(event.node)
        self._carry_out(self.dispatcher.apply(event, now))
        if node.healthy and not was_healthy:
            log.info("node is up", extra=kv(node=node.name, endpoint=node.endpoint))
        elif not node.healthy and (was_healthy or first):
            log.warning("node is down", extra=kv(node=node.name, cause=node.error))

    def ask(
        self,
        origin: bytes,
        message: Acquire,
        *,
        only_node: NodeName | None,
        hear: Callable[[ToWorker], None],
    ) -> None:
        """Put a request that comes from this process; `hear` gets the answers until `withdraw`."""
        self._local[origin] = hear
        now = self.look()
        self._carry_out(self.dispatcher.acquire(origin, message, now, only_node=only_node))

    def withdraw(self, origin: bytes) -> None:
        """Give up a request of this process, waiting or granted. Idempotent."""
        self._local.pop(origin, None)
        self._carry_out(self.dispatcher.origin_gone(origin, self._clock()))

    async def unload(self, replica_id: ReplicaId, *, force: bool) -> Outcome:
        """Unload a replica that is leaving already, and return what came of it."""
        return await self._loads.start_unload(StartUnload(replica_id, drain=True, force=force))

    async def until(self, predicate: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `predicate` holds, looked at after each change; False after `timeout_s`."""
        deadline = self._clock() + timeout_s
        while not predicate():
            left_s = deadline - self._clock()
            if left_s <= 0:
                return False
            self._changed.clear()
            try:
                async with asyncio.timeout(min(left_s, IDLE_TICK_S)):
                    await self._changed.wait()
            except TimeoutError:
                self.look()
        return True

    def look(self) -> float:
        """Read the in-flight table into the state; return the time."""
        now = self._clock()
        columns = self.dispatcher.state.columns_in_use()
        self.dispatcher.count(self._board.read(columns), now)
        return now

    def node(self, name: NodeName) -> Node:
        return self.dispatcher.state.nodes[name]

    def on_device(self, order: RestartDevice) -> list[Replica]:
        state = self.dispatcher.state
        return list(state.on_device(state.nodes[order.node], order.device))

    def load_request(self, order: StartLoad) -> LoadRequest:
        state = self.dispatcher.state
        return self.dispatcher.catalogue.load_request(state, order.model_id, order.load)

    def replica(self, name: ReplicaId) -> tuple[Replica, str, int] | None:
        state = self.dispatcher.state
        found = state.replicas.get(name)
        if found is None:
            return None
        node = state.nodes[found.node]
        return found, node.endpoint, node.state_version

    def is_idle(self, replica: Replica) -> bool:
        self.look()
        return replica.column is None or self.dispatcher.in_flight(replica.column) == 0

    def _report(self, outcome: Outcome) -> None:
        if isinstance(outcome, Unloaded):
            self._count_eviction(outcome.replica_id)
        self.submit(outcome)

    def _count_eviction(self, name: ReplicaId) -> None:
        state = self.dispatcher.state
        replica = state.replicas.get(name)
        if replica and any(name in under_way.load.evict for under_way in state.loads.values()):
            self._metrics.eviction(replica.model.id, replica.node)

    def _show(self) -> None:
        if self._unheard and self._clock() < self._first_look_ends:
            return
        try:
            shown = self._board.show(self.dispatcher)
        except InternalError as ex:
            # Workers go on with the last one; what was decided is carried out all the same.
            log.error("snapshot not published", extra=kv(cause=ex.message))
            return
        if shown:
            self.dispatcher.state.published()
            self._tell_without_column()

    def _tell_without_column(self) -> None:
        count = self.dispatcher.state.without_column()
        if count > self._without_column:
            told = kv(not_routed_to=count, most=MAX_REPLICAS)
            log.warning("in-flight table is full: too many replicas", extra=told)
        self._without_column = count

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        self._show()
        gone: set[bytes] = set()
        for effect in effects:
            match effect:
                case Tell():
                    if not self._tell(effect):
                        gone.add(effect.origin)
                case StartLoad():
                    self._loads.start_load(effect)
                    self._poller.poll_now(effect.load.node)
                case StartUnload():
                    self._loads.start_unload(effect)
                case RestartDevice():
                    self._loads.start_restart(effect)
                case PollNow():
                    self._poller.poll_now(effect.node)
                case ColdStart():
                    self._metrics.cold_start(effect.model_id, effect.node)
                case Refused():
                    self._metrics.rejection(effect.model_id, effect.code)
                case _:
                    assert_never(effect)
        for origin in gone:
            log.warning("worker is gone", extra=kv(worker=origin.decode(errors="replace")))
            self._carry_out(self.dispatcher.origin_gone(origin, self._clock()))
        self._changed.set()
        if len(self.dispatcher.queues):
            self._hurry.set()

    def _tell(self, effect: Tell) -> bool:
        """Send a message; return whether there is still somebody to send to."""
        hear = self._local.get(effect.origin)
        if hear is not None:
            hear(effect.message)
            return True
        try:
            self._send(effect.origin, effect.message)
        except NodeUnavailable:
            return False
        except Overloaded as ex:
            # The worker does not read; what it misses it asks for again.
            log.warning("message to worker dropped", extra=kv(cause=ex.message))
        return True

    def _poll_interval_s(self, node: NodeName) -> float:
        if self.dispatcher.state.is_settling(node):
            return self._pace.interval_s(node, self._clock())
        self._pace.settled(node)
        return self._fleet.poll_interval_s

    async def _tick_forever(self) -> None:
        while True:
            self._hurry.clear()
            if len(self.dispatcher.queues):
                await asyncio.sleep(BUSY_TICK_S)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_TICK_S):
                        await self._hurry.wait()
            self._tick()

    def _tick(self) -> None:
        self._alive()
        try:
            now = self.look()
            self._carry_out(self.dispatcher.tick(now))
            if len(self.dispatcher.queues):
                # What they wait for may be news of a node.
                self._poller.poll_if_older(self._fast_poll_s)
        except Exception:
            # Without further ticks no wait would ever end.
            log.exception("tick failed")
