"""The worker's fleet client against a scripted actor, with real segments."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import msgspec
import pytest

from cortex_core.canonical import Loading
from cortex_core.errors import ErrorInfo, ModelLoadFailed, NodeUnavailable, Overloaded
from cortex_core.ids import ModelId, NodeName, ReplicaId, RequestId
from cortex_core.ipc.counters import CounterTable, counter_segment_bytes
from cortex_core.ipc.segment import Segment
from cortex_core.ipc.snapshot import SnapshotReader, SnapshotWriter, snapshot_segment_bytes
from cortex_core.neuron_api import ModelLimit
from cortexd.fleet.client import GIVE_UP_S, RESEND_S, FleetClient, Lease
from cortexd.fleet.layout import IN_FLIGHT_COLUMNS
from cortexd.fleet.protocol import (
    Acquire,
    AcquireProgress,
    CancelAcquire,
    FleetSnapshot,
    Granted,
    GrantTaken,
    ModelView,
    Rejected,
    ReplicaView,
    ReportFailure,
    ReportFull,
    ToActor,
)
from tests.fakes.waiting import WAIT_S

A = ModelId("file:a")
ONE = RequestId("one")
ROWS = 2


def replica(places: int = 1) -> ReplicaView:
    return ReplicaView(
        ReplicaId("n/file:a"),
        A,
        NodeName("n"),
        "http://n:1",
        "ready",
        column=3,
        max_in_flight=places,
    )


class Worker:
    """A client with everything around it in the test's hands."""

    def __init__(self) -> None:
        self.segments = [
            Segment.create("snapshot", snapshot_segment_bytes(65536)),
            Segment.create("counts", counter_segment_bytes(ROWS, IN_FLIGHT_COLUMNS)),
        ]
        self.writer = SnapshotWriter(self.segments[0])
        self.counts = CounterTable(self.segments[1], IN_FLIGHT_COLUMNS)
        self.sent: list[ToActor] = []
        self.now = 0.0
        self.client = FleetClient(
            SnapshotReader(self.segments[0]), self.counts, 0, self, clock=lambda: self.now
        )

    def send(self, message: ToActor) -> None:
        self.sent.append(message)

    def show(self, *replicas: ReplicaView, queued: bool = False) -> None:
        view = ModelView(A, (), None, ModelLimit(), queued=queued)
        snapshot = FleetSnapshot(1, (view,), (), replicas, {})
        self.writer.publish(msgspec.msgpack.encode(snapshot))

    async def lease(self) -> Lease:
        async for step in self.client.acquire(A, ONE):
            if isinstance(step, Lease):
                return step
        raise AssertionError("no lease")


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    for segment in made.segments:
        segment.close()


async def test_a_ready_model_costs_no_message(worker: Worker) -> None:
    worker.show(replica())

    lease = await worker.lease()

    assert (lease.replica, worker.sent) == (replica(), [])
    assert worker.counts.sum(3) == 1
    lease.release()
    lease.release()
    assert worker.counts.sum(3) == 0


async def test_what_other_workers_count_fills_places_too(worker: Worker) -> None:
    worker.show(replica())
    worker.counts.row(1).increment(3)

    async with aclosing(worker.client.acquire(A, ONE)) as steps:
        first = await anext(steps)

    assert first == Loading(stage="queued")
    assert worker.sent == [Acquire(ONE, A), CancelAcquire(ONE)]


async def test_nobody_who_waits_is_overtaken(worker: Worker) -> None:
    worker.show(replica(), queued=True)

    async with aclosing(worker.client.acquire(A, ONE)) as steps:
        assert isinstance(await anext(steps), Loading)

    assert worker.sent[0] == Acquire(ONE, A)


async def test_a_grant_is_counted_and_confirmed(worker: Worker) -> None:
    worker.show()
    waiting = asyncio.create_task(worker.lease())
    await asyncio.sleep(0)

    worker.client.on_message(AcquireProgress(ONE, Loading("loading", 0.5)))
    worker.client.on_message(Granted(ONE, replica()))
    lease = await waiting

    assert worker.sent == [Acquire(ONE, A), GrantTaken(ONE)]
    assert worker.counts.sum(lease.replica.column) == 1


async def test_progress_is_passed_on(worker: Worker) -> None:
    worker.show()
    async with aclosing(worker.client.acquire(A, ONE)) as steps:
        await anext(steps)
        following = asyncio.ensure_future(anext(steps))
        await asyncio.sleep(0)
        worker.client.on_message(AcquireProgress(ONE, Loading("loading", 0.5)))

        assert await following == Loading("loading", 0.5)


async def test_a_rejection_is_raised_as_what_it_was(worker: Worker) -> None:
    worker.show()
    waiting = asyncio.create_task(worker.lease())
    await asyncio.sleep(0)

    worker.client.on_message(Rejected(ONE, ErrorInfo("model_load_failed", "cannot load")))

    with pytest.raises(ModelLoadFailed, match="cannot load"):
        await waiting
    assert worker.sent == [Acquire(ONE, A)]


async def test_a_request_that_is_cancelled_tells_the_actor(worker: Worker) -> None:
    worker.show()
    waiting = asyncio.create_task(worker.lease())
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert worker.sent == [Acquire(ONE, A), CancelAcquire(ONE)]


async def test_a_grant_that_crosses_the_cancel_is_given_back(worker: Worker) -> None:
    worker.show()
    waiting = asyncio.create_task(worker.lease())
    await asyncio.sleep(0)
    worker.client.on_message(Granted(ONE, replica()))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    worker.client.on_message(Granted(RequestId("gone"), replica()))

    assert worker.counts.sum(3) == 0
    assert worker.sent[-1] == CancelAcquire(RequestId("gone"))


async def test_a_silent_actor_is_asked_again_and_then_given_up(worker: Worker) -> None:
    worker.show()
    async with aclosing(worker.client.acquire(A, ONE)) as steps:
        await anext(steps)
        worker.now = RESEND_S
        assert await anext(steps) == Loading(stage="queued")
        assert await anext(steps) == Loading(stage="queued")
        worker.now = GIVE_UP_S
        with pytest.raises(NodeUnavailable) as raised:
            await anext(steps)

    assert worker.sent == [Acquire(ONE, A), Acquire(ONE, A), CancelAcquire(ONE)]
    assert raised.value.retry_after_s


async def test_nothing_is_resolved_before_the_first_snapshot(worker: Worker) -> None:
    with pytest.raises(Overloaded):
        worker.client.resolve("file:a")
    worker.show()
    assert worker.client.resolve("file:a") == A


async def test_a_snapshot_is_decoded_once(worker: Worker) -> None:
    worker.show()
    assert worker.client.snapshot() is worker.client.snapshot()
    before = worker.client.snapshot()
    worker.show(replica())
    assert worker.client.snapshot() is not before


async def test_a_failure_is_reported(worker: Worker) -> None:
    error = ErrorInfo("node_unavailable", "broke off")
    worker.client.report_failure(replica().id, error)
    assert worker.sent == [ReportFailure(replica().id, error)]


async def test_a_node_without_room_is_reported_and_the_wait_for_it_told(worker: Worker) -> None:
    worker.show(replica())
    worker.client.report_full(replica().id, 1.5)

    waiting = worker.client.acquire(A, ONE, failed_on=(replica().id,), waited_s=2.5)
    async with aclosing(waiting) as steps:
        assert isinstance(await anext(steps), Loading)

    asked = Acquire(ONE, A, failed_on=(replica().id,), waited_s=2.5)
    assert worker.sent == [ReportFull(replica().id, 1.5), asked, CancelAcquire(ONE)]


async def test_a_worker_can_wait_for_the_first_snapshot(worker: Worker) -> None:
    waiting = asyncio.create_task(worker.client.until_known(WAIT_S))
    await asyncio.sleep(0)
    assert not waiting.done()
    worker.show()
    await waiting
    assert worker.client.resolve(A) == A


async def test_a_worker_does_not_wait_for_ever(worker: Worker) -> None:
    await worker.client.until_known(0.0)
    with pytest.raises(Overloaded, match="the fleet is starting"):
        worker.client.resolve(A)
