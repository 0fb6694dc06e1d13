"""Serves the queues: every event goes in here, and what is to be done comes out. Pure.

Owned by the fleet actor's loop, which carries the effects out in order, after it has published
the snapshot. A waiter leaves in exactly one of four ways: granted, rejected, cancelled, or with
its connection. What is granted is held until the worker has counted it in its own row.

Swaps are collated: a model that is busy, or was just now, keeps its memory while others wait for
it, but for `collate_s` at most, counted from when it became ready. Then it yields: its new
requests queue, what runs on it ends, and it goes. So models that need the same memory take turns
of at least `collate_s`, and each turn serves everything that came in meanwhile.
"""

from cortex_core.errors import CortexError, QueueFull
from cortex_core.ids import ModelId, NodeName, ReplicaId
from cortexd.config import FleetConfig
from cortexd.fleet.catalogue import Catalogue
from cortexd.fleet.decisions import Load, Reject, RouteRequest, RouteTo, Wait
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
from cortexd.fleet.events import (
    FleetEvent,
    HadNoRoom,
    InFlightRead,
    LoadDone,
    LoadFailed,
    LoadStarted,
    RestartEnded,
    RestartStarted,
    RoomAgain,
    StreamBroke,
    Unloaded,
    UnloadFailed,
    UnloadStarted,
    Yielding,
)
from cortexd.fleet.eviction import EvictionPolicy
from cortexd.fleet.holds import Holds
from cortexd.fleet.index import FleetIndex
from cortexd.fleet.placement import Placement
from cortexd.fleet.protocol import (
    Acquire,
    AcquireProgress,
    FleetSnapshot,
    Granted,
    Rejected,
    ReplicaView,
    ToWorker,
)
from cortexd.fleet.queues import Queues, Ticket, Waiter
from cortexd.fleet.records import Replica
from cortexd.fleet.refusals import tried_too_often, waited_too_long
from cortexd.fleet.router import Router
from cortexd.fleet.setbacks import Setbacks
from cortexd.fleet.state import FleetState
from cortexd.fleet.upkeep import Upkeep
from cortexd.fleet.views import loading_of, snapshot_of

LINGER_S = 0.5
"""A model that was in use so shortly ago counts as busy: its next request may be on the way."""
TELL_S = 0.5
"""A waiter hears something this often."""


class Dispatcher:
    """Decides on every event, in order. Not reentrant; single-threaded."""

    def __init__(
        self,
        state: FleetState,
        catalogue: Catalogue,
        policy: EvictionPolicy,
        fleet: FleetConfig,
        *,
        collate_s: float,
        defrag_after_cycles: int,
        default_scheme: str,
    ) -> None:
        self.state = state
        self.catalogue = catalogue
        self.queues = Queues()
        self._policy = policy
        self._fleet = fleet
        self._collate_s = collate_s
        self._defrag_after_cycles = defrag_after_cycles
        self._default_scheme = default_scheme
        self._setbacks = Setbacks(retry_s=fleet.load_retry_s, max_attempts=fleet.max_load_attempts)
        self._holds = Holds()
        self._counts: dict[int, int] = {}
        self._index: FleetIndex | None = None
        self._effects: list[Effect] = []
        self._revision = 0

    def acquire(
        self, origin: bytes, message: Acquire, now: float, *, only_node: NodeName | None = None
    ) -> list[Effect]:
        """Take a request in. One that is here already is answered again."""
        ticket = Ticket(origin, message.request_id)
        held = self._holds.renew(ticket, now)
        if held is not None:
            self._tell(ticket, Granted(ticket.request_id, held))
        elif ticket in self.queues:
            self._tell_progress(ticket, message.model_id)
        else:
            request = RouteRequest(message.model_id, message.failed_on, only_node)
            self._enqueue(ticket, request, message, now)
        return self._take_effects()

    def cancel(self, ticket: Ticket, now: float) -> list[Effect]:
        """The client went away, before or after it was granted a place. Idempotent."""
        self._holds.drop(ticket)
        self._dequeue(ticket)
        return self._settle(now)

    def taken(self, ticket: Ticket, now: float) -> list[Effect]:
        """The worker counts the request in its own row; what was read of that has it already."""
        self._holds.drop(ticket)
        return self._settle(now)

    def origin_gone(self, origin: bytes, now: float) -> list[Effect]:
        """A worker died: nobody waits there any more."""
        for waiter in self.queues.of_origin(origin):
            self._dequeue(waiter.ticket)
        self._holds.drop_origin(origin)
        return self._settle(now)

    def report_failure(self, replica: ReplicaId, now: float) -> list[Effect]:
        """A request failed on a replica; nothing more goes there before its node was asked."""
        known = self.state.replicas.get(replica)
        if known is not None:
            self._effects.append(PollNow(known.node))
            self._change(StreamBroke(replica), now)
        return self._settle(now)

    def report_full(
        self, replica: ReplicaId, retry_after_s: float | None, now: float
    ) -> list[Effect]:
        """A node had no room for a request; nobody else is sent there for a while."""
        self._change(HadNoRoom(replica, retry_after_s), now)
        return self._settle(now)

    def apply(self, event: FleetEvent, now: float) -> list[Effect]:
        """Take in what happened to the fleet."""
        if isinstance(event, LoadDone):
            self._count_cold_start(event)
        self._change(event, now)
        match event:
            case LoadDone():
                self._setbacks.loaded(event.model_id, event.node)
                self._effects.append(PollNow(event.node))
            case LoadFailed():
                self._setbacks.load_failed(
                    event.model_id,
                    event.node,
                    event.error,
                    now,
                    may_evict=self._may_evict_for(event.model_id, now),
                )
                self._effects.append(PollNow(event.node))
            case RestartEnded():
                self._effects.append(PollNow(event.node))
            case Unloaded() | UnloadFailed():
                self._effects.append(PollNow(NodeName(event.replica_id.partition("/")[0])))
            case _:
                pass
        return self._settle(now)

    def count(self, read: InFlightRead, now: float) -> None:
        """Take the workers' counts in. Decides nothing: the next event or tick does."""
        self._counts = read.in_flight
        self.state.apply(read, now)

    def tick(self, now: float) -> list[Effect]:
        """Time passed: waits that are over, places nobody took, idle and wanted replicas."""
        self._holds.drop_expired(now)
        placement = self._placement(now)
        for waiter in self.queues:
            self._check_wait(waiter, placement, now)
        upkeep = Upkeep(self.state, self.catalogue, placement, now=now)
        self._unload_idle(upkeep, now)
        self._load_wanted(upkeep, now)
        self._restart_worn(upkeep, now)
        effects = self._settle(now)
        for waiter in self.queues:
            if now - waiter.told_at >= TELL_S:
                waiter.told_at = now
                self._tell_progress(waiter.ticket, waiter.request.model_id)
        return effects + self._take_effects()

    def news(self) -> object:
        """Return what differs from before whenever `snapshot` may."""
        return self._revision, tuple(sorted(self.queues.models()))

    def snapshot(self, version: int = 0) -> FleetSnapshot:
        """Return what workers are to see now."""
        return snapshot_of(
            self.state,
            self.catalogue,
            queued=frozenset(self.queues.models()),
            default_scheme=self._default_scheme,
            version=version,
        )

    def in_flight(self, column: int) -> int:
        """Return what is counted, and held, on the replica with this column."""
        return self._counts.get(column, 0) + self._holds.on(column)

    def _enqueue(self, ticket: Ticket, request: RouteRequest, message: Acquire, now: float) -> None:
        model_id = request.model_id
        try:
            waiter = self.queues.add(
                ticket,
                request,
                priority=message.priority,
                principal=message.principal,
                now=now,
                max_wait_s=self.catalogue.max_wait_s(model_id),
                bound=self.catalogue.max_queue_depth(model_id),
                waited_s=message.waited_s,
            )
        except QueueFull as ex:
            self._refuse(ticket, model_id, ex)
            return
        # One that nodes turned away may have waited as long as it may.
        self._check_wait(waiter, self._placement(now), now)
        self._serve_queues(now)
        if waiter.ticket in self.queues:
            self._tell_progress(ticket, model_id)

    def _settle(self, now: float) -> list[Effect]:
        self._serve_queues(now)
        return self._take_effects()

    def _take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def _change(self, event: FleetEvent, now: float) -> None:
        self.state.apply(event, now)
        self._index = None
        self._revision += 1

    def _serve_queues(self, now: float) -> None:
        """Decide for everybody who waits, the model with the oldest waiter first."""
        self._lift_marks(now)
        placement = self._placement(now)
        router = Router(placement)
        for model_id in self.queues.models():
            alike: set[tuple[object, ...]] = set()
            for waiter in self.queues.waiting(model_id):
                kind = (waiter.request.failed_on, waiter.request.only_node)
                # What makes one wait makes all of its kind wait.
                if kind not in alike and not self._serve(waiter, router, now):
                    alike.add(kind)

    def _serve(self, waiter: Waiter, router: Router, now: float) -> bool:
        """Decide for one waiter; return whether that ended its wait."""
        decision = router.route(waiter.request, self._current_index(), self.in_flight)
        match decision:
            case RouteTo():
                self._grant(waiter, decision.replica, now)
                return True
            case Reject():
                self._refuse(waiter.ticket, waiter.request.model_id, decision.error)
                return True
            case Load():
                return self._start_load(waiter, decision, now)
            case Wait():
                self._ask_to_yield(waiter, decision, now)
                return False

    def _grant(self, waiter: Waiter, replica: ReplicaView, now: float) -> None:
        self._dequeue(waiter.ticket, served=True)
        self._holds.add(waiter.ticket, replica, now)
        self._tell(waiter.ticket, Granted(waiter.ticket.request_id, replica))

    def _start_load(self, waiter: Waiter, load: Load, now: float) -> bool:
        model_id = waiter.request.model_id
        if self._setbacks.exhausted(model_id):
            error = tried_too_often(model_id, self._fleet.max_load_attempts)
            self._refuse(waiter.ticket, model_id, error)
            return True
        self._setbacks.tried(model_id)
        self._carry_out(LoadStarted(model_id, load, asked_for=True), now)
        return False

    def _carry_out(self, decision: LoadStarted, now: float) -> None:
        self._change(decision, now)
        self._effects.append(StartLoad(decision.model_id, decision.load))

    def _count_cold_start(self, done: LoadDone) -> None:
        under_way = self.state.loads.get(done.model_id)
        if under_way is not None and under_way.asked_for:
            self._effects.append(ColdStart(done.model_id, done.node))

    def _ask_to_yield(self, waiter: Waiter, wait: Wait, now: float) -> None:
        """Drain busy replicas that have had their turn, for a model that waits for their memory."""
        for name in wait.blocked_by:
            replica = self.state.replicas[name]
            turn_began = max(waiter.since, replica.ready_at)
            if replica.yielding_to is None and now - turn_began >= self._collate_s:
                self._change(Yielding(name, waiter.request.model_id), now)

    def _lift_marks(self, now: float) -> None:
        """Put replicas back into service that yield to nobody, or were full for long enough."""
        for replica in list(self.state.replicas.values()):
            to = replica.yielding_to
            if to is not None and not replica.leaving and self.queues.depth(to) == 0:
                self._change(Yielding(replica.id, None), now)
            if replica.full_until is not None and replica.full_until <= now:
                self._change(RoomAgain(replica.id), now)

    def _may_evict_for(self, model_id: ModelId, now: float) -> bool:
        """Say whether anybody who waits for the model would have others evicted for it."""
        placement = self._placement(now)
        waiting = self.queues.waiting(model_id)
        return any(not placement.has_replica(waiter.request) for waiter in waiting)

    def _check_wait(self, waiter: Waiter, placement: Placement, now: float) -> None:
        """End a wait that took too long. The time that the model is loading does not count."""
        model_id = waiter.request.model_id
        wait_s = self.catalogue.max_wait_s(model_id)
        loading = placement.loading(waiter.request) is not None
        if loading and now - waiter.since < self._fleet.load_timeout_s:
            waiter.deadline = now + wait_s
        if waiter.deadline > now:
            return
        self._refuse(waiter.ticket, model_id, waited_too_long(model_id, now - waiter.since))

    def _unload_idle(self, upkeep: Upkeep, now: float) -> None:
        for replica in upkeep.outlived():
            self._change(UnloadStarted(replica), now)
            self._effects.append(StartUnload(replica))

    def _load_wanted(self, upkeep: Upkeep, now: float) -> None:
        for model_id, load in upkeep.wanted():
            self._carry_out(LoadStarted(model_id, load), now)

    def _restart_worn(self, upkeep: Upkeep, now: float) -> None:
        if not self._defrag_after_cycles or len(self.queues):
            return
        for node, device in upkeep.worn(self._defrag_after_cycles):
            self._change(RestartStarted(node, device), now)
            self._effects.append(RestartDevice(node, device))

    def _placement(self, now: float) -> Placement:
        return Placement(
            self.state,
            self.catalogue,
            self._policy,
            self._setbacks,
            busy=lambda replica: self._busy(replica, now),
            node_grace_s=self._fleet.node_grace_s,
            now=now,
        )

    def _busy(self, replica: Replica, now: float) -> bool:
        if replica.column is not None and self.in_flight(replica.column):
            return True
        if replica.ready and self.queues.depth(replica.model.id):
            return True
        # Who else uses it does not hear that it yields; its turn is over all the same.
        if replica.elsewhere and replica.yielding_to is None:
            return True
        had_its_turn = now - replica.ready_at >= self._collate_s
        return not had_its_turn and now - replica.last_used_at < LINGER_S

    def _current_index(self) -> FleetIndex:
        if self._index is None:
            self._index = FleetIndex(self.snapshot())
        return self._index

    def _dequeue(self, ticket: Ticket, *, served: bool = False) -> None:
        waiter = self.queues.remove(ticket, served=served)
        if waiter is not None and not self.queues.depth(waiter.request.model_id):
            self._setbacks.start_over(waiter.request.model_id)

    def _refuse(self, ticket: Ticket, model_id: ModelId, error: CortexError) -> None:
        self._dequeue(ticket)
        self._effects.append(Refused(model_id, error.code))
        self._tell(ticket, Rejected(ticket.request_id, error.info()))

    def _tell_progress(self, ticket: Ticket, model_id: ModelId) -> None:
        loading = loading_of(self.state, model_id)
        self._tell(ticket, AcquireProgress(ticket.request_id, loading))

    def _tell(self, ticket: Ticket, message: ToWorker) -> None:
        self._effects.append(Tell(ticket.origin, message))
