"""Workers and the actor together, in any order: no place stays taken when nobody runs any more."""

import asyncio
from collections import deque
from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from cortex_core.ids import ModelId, RequestId
from cortex_core.ipc.counters import CounterTable, counter_segment_bytes
from cortex_core.ipc.segment import Segment
from cortex_core.ipc.snapshot import SnapshotReader, snapshot_segment_bytes
from cortexd.fleet.board import FleetBoard
from cortexd.fleet.client import RESEND_S, FleetClient, Lease
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.effects import Effect, Tell
from cortexd.fleet.holds import HOLD_S
from cortexd.fleet.layout import IN_FLIGHT_COLUMNS, MAX_REPLICAS
from cortexd.fleet.protocol import Acquire, CancelAcquire, GrantTaken, ToActor, ToWorker
from cortexd.fleet.queues import Ticket
from tests.fakes.fleet_world import WORKER, dispatcher_of, node_model, polled

A = ModelId("file:a")
PLACES = 1

OPERATIONS = (
    "ask",
    "to_actor",
    "to_worker",
    "all",
    "cancel",
    "release",
    "wait",
    "tick",
    "turns",
    "new_actor",
)


class World:
    """One worker and the actor; what they tell each other stays on the way until it is let on."""

    def __init__(self) -> None:
        self.segments = [
            Segment.create("snapshot", snapshot_segment_bytes(65536)),
            Segment.create("counts", counter_segment_bytes(1, IN_FLIGHT_COLUMNS)),
        ]
        self.counts = CounterTable(self.segments[1], IN_FLIGHT_COLUMNS)
        self.now = 0.0
        self.to_actor: deque[ToActor] = deque()
        self.to_worker: deque[ToWorker] = deque()
        self.tasks: list[asyncio.Task[None]] = []
        self.running: list[asyncio.Event] = []
        self.board = FleetBoard(*self.segments)
        self.client = FleetClient(
            SnapshotReader(self.segments[0]), self.counts, 0, self, clock=lambda: self.now
        )
        self.actor = self._new_actor()

    def send(self, message: ToActor) -> None:
        self.to_actor.append(message)

    def _new_actor(self) -> Dispatcher:
        actor = dispatcher_of("n", max_in_flight=PLACES)
        actor.apply(polled("n", node_model(A)), self.now)
        self.board = FleetBoard(*self.segments)
        self.board.show(actor)
        return actor

    def carry_out(self, effects: list[Effect]) -> None:
        self.board.show(self.actor)
        self.to_worker.extend(effect.message for effect in effects if isinstance(effect, Tell))

    def deliver_to_actor(self) -> None:
        self.actor.count(self.board.read(self.actor.state.columns_in_use()), self.now)
        match self.to_actor.popleft():
            case Acquire() as message:
                self.carry_out(self.actor.acquire(WORKER, message, self.now))
            case CancelAcquire(request_id=name):
                self.carry_out(self.actor.cancel(Ticket(WORKER, name), self.now))
            case GrantTaken(request_id=name):
                self.carry_out(self.actor.taken(Ticket(WORKER, name), self.now))

    def deliver_all(self) -> None:
        while self.to_actor or self.to_worker:
            while self.to_worker:
                self.client.on_message(self.to_worker.popleft())
            while self.to_actor:
                self.deliver_to_actor()

    def tick(self) -> None:
        self.actor.count(self.board.read(self.actor.state.columns_in_use()), self.now)
        self.carry_out(self.actor.tick(self.now))

    async def serve(self, name: str) -> None:
        """Do as a request does: wait for a place, hold it until told, give it back."""
        lease: Lease | None = None
        try:
            async for step in self.client.acquire(A, RequestId(name)):
                if isinstance(step, Lease):
                    lease = step
            done = asyncio.Event()
            self.running.append(done)
            await done.wait()
        finally:
            if lease is not None:
                lease.release()

    async def do(self, operation: str, which: int) -> None:
        match operation:
            case "ask":
                self.tasks.append(asyncio.create_task(self.serve(f"r{len(self.tasks)}")))
            case "to_actor" if self.to_actor:
                self.deliver_to_actor()
            case "to_worker" if self.to_worker:
                self.client.on_message(self.to_worker.popleft())
            case "all":
                self.deliver_all()
            case "cancel" if open_tasks := [task for task in self.tasks if not task.done()]:
                open_tasks[which % len(open_tasks)].cancel()
            case "release" if self.running:
                self.running[which % len(self.running)].set()
            case "wait":
                self.now += RESEND_S
            case "tick":
                self.tick()
            case "turns":
                await turns()
            case "new_actor":
                # What was on its way is lost with the old one.
                self.to_actor.clear()
                self.to_worker.clear()
                self.actor = self._new_actor()
        if operation in ("ask", "release") or which % 3 == 0:
            await turns()

    async def settle(self) -> None:
        """End every request, let every message arrive, and every hold expire."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.deliver_all()
        self.now += HOLD_S
        self.tick()

    def close(self) -> None:
        for segment in self.segments:
            segment.close()


async def turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


ASKED = [("ask", 0), ("ask", 0), ("all", 1)]
GRANTED = [*ASKED, ("release", 0), ("tick", 1), ("to_worker", 1), ("all", 1)]
STEPS = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 9)), max_size=30)


@settings(max_examples=150)
@given(st.builds(list.__add__, st.sampled_from([[], ASKED, GRANTED]), STEPS))
@example([*GRANTED, ("cancel", 1)])
@example([*ASKED, ("release", 0), ("tick", 1), ("cancel", 0), ("all", 1)])
@example([*ASKED, ("wait", 0), ("new_actor", 1), ("wait", 0), ("turns", 0), ("all", 1)])
async def test_nothing_is_in_flight_when_nobody_runs(steps: list[tuple[str, int]]) -> None:
    world = World()
    try:
        for operation, which in steps:
            await world.do(operation, which)
        await world.settle()
        counted: Callable[[int], int] = world.counts.sum
        assert [column for column in range(MAX_REPLICAS) if counted(column)] == []
        assert [column for column in range(MAX_REPLICAS) if world.actor.in_flight(column)] == []
        assert len(world.actor.queues) == 0
    finally:
        world.close()
