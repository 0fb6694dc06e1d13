"""The gateway's HTTP server as a real process, over a fleet that the test writes down.

There is no fleet actor: the test publishes the snapshot itself, so workers route to the replicas
that it names and nothing else.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from cortex_core.ids import ModelId, NodeName, ReplicaId
from cortex_core.ipc.child import DeathPipe
from cortex_core.ipc.counters import counter_segment_bytes
from cortex_core.ipc.liveness import LIVENESS_SEGMENT_BYTES
from cortex_core.ipc.segment import Segment
from cortex_core.ipc.snapshot import SnapshotWriter, snapshot_segment_bytes
from cortex_core.neuron_api import ModelLimit
from cortexd.child_env import ChildEnvironment
from cortexd.fleet.layout import IN_FLIGHT_COLUMNS, SNAPSHOT_BYTES
from cortexd.fleet.protocol import FleetSnapshot, ModelView, NodeView, ReplicaView
from tests.fakes.waiting import WAIT_S

MODEL = ModelId("fake:m")
ROWS = 16


def snapshot_of(*endpoints: str, version: int = 1) -> FleetSnapshot:
    """A fleet in which every endpoint is a node that has `MODEL` ready."""
    names = [NodeName(f"node{number}") for number in range(len(endpoints))]
    return FleetSnapshot(
        version=version,
        models=(
            ModelView(MODEL, feasible_on=tuple(names), vram_estimate_mb=100, limit=ModelLimit(64)),
            ModelView(ModelId("fake:cold"), (names[0],) if names else (), None, ModelLimit()),
        ),
        nodes=tuple(NodeView(n, e, healthy=True) for n, e in zip(names, endpoints, strict=True)),
        replicas=tuple(
            ReplicaView(
                ReplicaId(f"{name}/{MODEL}"), MODEL, name, endpoint, "ready", row, max_in_flight=64
            )
            for row, (name, endpoint) in enumerate(zip(names, endpoints, strict=True))
        ),
        aliases={"small": MODEL},
        default_scheme="fake",
    )


class HttpProcess:
    """Starts on construction. Pids of its workers are those of its children."""

    def __init__(
        self,
        folder: Path,
        *endpoints: str,
        drain_timeout_s: float = 2.0,
        gateway_toml: str = "",
        module: str = "cortexd.http_server",
    ) -> None:
        self._segments = [
            Segment.create("snapshot", snapshot_segment_bytes(SNAPSHOT_BYTES)),
            Segment.create("in-flight", counter_segment_bytes(ROWS, IN_FLIGHT_COLUMNS)),
            Segment.create("liveness", LIVENESS_SEGMENT_BYTES),
        ]
        self._writer = SnapshotWriter(self._segments[0])
        self._version = 0
        self.publish(*endpoints)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._death = DeathPipe()
        config = folder / "cortex.toml"
        config.write_text(
            f'[gateway]\nworkers = 1\ndrain_timeout_s = {drain_timeout_s}\nstate_dir = "{folder}"\n'
            f"{gateway_toml}"
        )
        metrics = folder / "metrics"
        metrics.mkdir()
        self.environment = ChildEnvironment(
            config=config,
            runtime_dir=folder,
            metrics_dir=metrics,
            snapshot_fd=self._segments[0].fd,
            in_flight_fd=self._segments[1].fd,
            liveness_fd=self._segments[2].fd,
            death_fd=self._death.read_fd,
            parent_pid=os.getpid(),
            listen_fd=self._listener.fileno(),
            started_at=1_700_000_000,
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            env=self.environment.to_environment(os.environ),
            pass_fds=self.environment.descriptors(),
        )
        self._listener.close()

    def publish(self, *endpoints: str) -> None:
        """Make these nodes the fleet, from the next request on."""
        self._version += 1
        snapshot = snapshot_of(*endpoints, version=self._version)
        self._writer.publish(msgspec.msgpack.encode(snapshot))

    def in_flight(self) -> int:
        """What workers count over all replicas."""
        counts = self._segments[1].buf.cast("I")
        rows = [
            counts[row * IN_FLIGHT_COLUMNS : (row + 1) * IN_FLIGHT_COLUMNS] for row in range(ROWS)
        ]
        return sum(sum(row[: IN_FLIGHT_COLUMNS // 2]) for row in rows)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Kill it; workers die with their master."""
        self.process.kill()
        self.process.wait(timeout=WAIT_S)
        self._death.close()
        for segment in self._segments:
            segment.close()
