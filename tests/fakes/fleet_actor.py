"""A real fleet actor process, with the segments that its parent would own, and workers for it."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Self

import msgspec
import zmq

from cortex_core.ids import ModelId, ReplicaId, RequestId, new_request_id
from cortex_core.ipc.admin import AdminClient
from cortex_core.ipc.channel import Channel
from cortex_core.ipc.child import ChildProcess, DeathPipe
from cortex_core.ipc.counters import CounterTable, counter_segment_bytes
from cortex_core.ipc.liveness import LIVENESS_SEGMENT_BYTES
from cortex_core.ipc.segment import Segment
from cortex_core.ipc.snapshot import SnapshotReader, snapshot_segment_bytes
from cortex_core.ipc.sockets import connect_socket
from cortexd.child_env import ADMIN_SOCKET, ChildEnvironment
from cortexd.fleet.client import FleetClient, Lease
from cortexd.fleet.layout import IN_FLIGHT_COLUMNS, SNAPSHOT_BYTES
from cortexd.fleet.protocol import ToWorker
from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.waiting import WAIT_S, wait_until_async

ROWS = 4


class FleetWorker:
    """One HTTP worker's fleet client, in the test's own process."""

    def __init__(self, actor: "FleetActorProcess", row: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = connect_socket(
            self._context,
            zmq.DEALER,
            actor.environment.fleet_socket,
            hwm_messages=1000,
            routing_id=f"worker-{row}".encode(),
        )
        self.channel: Channel[ToWorker] = Channel(socket, msgspec.msgpack.Decoder(ToWorker))
        self.counts = CounterTable(actor.in_flight, IN_FLIGHT_COLUMNS)
        self.client = FleetClient(
            SnapshotReader(actor.snapshot),
            self.counts,
            row,
            self.channel,
            clock=time.monotonic,
        )
        self.channel.on_message(self.client.on_message)

    async def lease(
        self, model: str, request_id: RequestId | None = None, **options: tuple[ReplicaId, ...]
    ) -> Lease:
        """Wait for a place and return it."""
        steps = self.client.acquire(ModelId(model), request_id or new_request_id(), **options)
        async for step in steps:
            if isinstance(step, Lease):
                return step
        raise AssertionError("the client ended without a lease")

    def close(self) -> None:
        self.channel.close()
        self._context.term()


class FleetActorProcess:
    """Owns what `cortex serve` would; the actor can be killed and started again."""

    def __init__(self, folder: Path, cortex_toml: str, models_toml: str = "") -> None:
        (folder / "metrics").mkdir()
        (folder / "run").mkdir(mode=0o700)
        (folder / "models.toml").write_text(models_toml)
        (folder / "cortex.toml").write_text('models_config = "models.toml"\n' + cortex_toml)
        self.snapshot = Segment.create("snapshot", snapshot_segment_bytes(SNAPSHOT_BYTES))
        self.in_flight = Segment.create("counts", counter_segment_bytes(ROWS, IN_FLIGHT_COLUMNS))
        self.liveness = Segment.create("liveness", LIVENESS_SEGMENT_BYTES)
        self._pipe = DeathPipe()
        self.environment = ChildEnvironment(
            config=folder / "cortex.toml",
            runtime_dir=folder / "run",
            metrics_dir=folder / "metrics",
            snapshot_fd=self.snapshot.fd,
            in_flight_fd=self.in_flight.fd,
            liveness_fd=self.liveness.fd,
            death_fd=self._pipe.read_fd,
            parent_pid=os.getpid(),
            listen_fd=self._pipe.read_fd,
            started_at=0,
        )
        self.process: ChildProcess | None = None
        self.workers: list[FleetWorker] = []

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.close()
        if self.process is not None and self.process.running:
            await self.process.stop(WAIT_S)
        self._pipe.close()
        self.snapshot.close()
        self.in_flight.close()
        self.liveness.close()

    def start(self) -> None:
        self.process = ChildProcess.spawn(
            [sys.executable, "-m", "cortexd.fleet_actor"],
            env=self.environment.to_environment(os.environ),
            pass_fds=self.environment.descriptors(),
        )

    async def kill(self) -> None:
        """End it as a crash would, and reap it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await asyncio.wait_for(asyncio.shield(self.process.exited), WAIT_S)

    def worker(self, row: int = 0) -> FleetWorker:
        worker = FleetWorker(self, row)
        self.workers.append(worker)
        return worker

    async def admin(self, verb: str, **args: object) -> Any:
        """Call an admin verb and return its result as plain data."""

        def call() -> Any:
            with AdminClient(self.environment.runtime_dir / ADMIN_SOCKET) as client:
                return client.call(verb, silence_s=WAIT_S, **args)

        return await asyncio.to_thread(call)


def toml(*neurons: FakeNeuron, port: int, more: str = "") -> str:
    """Return a cortex.toml with these nodes, `more` tables of it, and metrics on `port`."""
    nodes = "".join(f'[[neurons]]\nname = "{n.name}"\nendpoint = "{n.endpoint}"\n' for n in neurons)
    return f'[gateway]\nmetrics_listen = "127.0.0.1:{port}"\n{more}\n{nodes}'


async def see(worker: FleetWorker, model: str, status: str = "") -> None:
    """Wait until the snapshot has the model, or a replica of it that is ready."""
    index = worker.client.index
    if status:
        await wait_until_async(
            lambda: any(r.status == status for r in index().replicas_of(ModelId(model)))
        )
    await wait_until_async(lambda: model in index().models)
