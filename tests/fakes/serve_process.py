"""`cortex serve` as a real process: parent, gunicorn and fleet actor, over fake neurons."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil

from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.gateway_client import GatewayClient
from tests.fakes.ports import free_ports
from tests.fakes.process_family import ProcessFamily
from tests.fakes.waiting import WAIT_S, wait_until

MODEL = "fake:m"


class ServeProcess:
    """One `cortex serve`. `close` kills what is left and fails the test if that was needed."""

    def __init__(
        self,
        folder: Path,
        *endpoints: str,
        drain_timeout_s: float = 2.0,
        port: int | None = None,
        environment: dict[str, str] | None = None,
        workers: int = 1,
    ) -> None:
        ports = free_ports(2)
        self.port = ports[0] if port is None else port
        self.metrics_port = ports[1]
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.run_dir = folder / "run"
        self.log = folder / f"{self.metrics_port}.log"  # its own: several can share a folder
        self.config = folder / "cortex.toml"
        nodes = "".join(
            f'[[neurons]]\nname = "node{number}"\nendpoint = "{endpoint}"\n'
            for number, endpoint in enumerate(endpoints)
        )
        self.config.write_text(
            'models_config = "models.toml"\n'
            f'[gateway]\nlisten = "127.0.0.1:{self.port}"\nworkers = {workers}\n'
            'default_scheme = "fake"\n'
            f'metrics_listen = "127.0.0.1:{self.metrics_port}"\nruntime_dir = "{self.run_dir}"\n'
            f'state_dir = "{folder / "state"}"\n'
            f"drain_timeout_s = {drain_timeout_s}\n[fleet]\npoll_interval_s = 0.2\n{nodes}"
        )
        (folder / "models.toml").write_text(
            f'[[models]]\nid = "{MODEL}"\nmax_replicas = 2\n[aliases]\nsmall = "{MODEL}"\n'
        )
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cortexd.cli", "serve", "--config", str(self.config)],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.family = ProcessFamily(self.process.pid)

    def member(self, module: str, *, worker: bool = False) -> psutil.Process:
        """The one process that runs `module`; with `worker`, of gunicorn's not the master."""
        found = self.family.running(module)
        pids = {one.pid for one in found}
        found = [one for one in found if (one.ppid() in pids) == worker]
        assert len(found) == 1, found
        return found[0]

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait_gone(self, timeout_s: float = WAIT_S) -> int:
        """Wait until the whole family has ended; return the parent's status."""
        wait_until(lambda: self.process.poll() is not None, timeout_s=timeout_s)
        self.family.wait_gone(timeout_s)
        return self.process.returncode

    def left_behind(self) -> list[Path]:
        """Socket files and folders in the runtime folder."""
        return sorted(self.run_dir.iterdir()) if self.run_dir.exists() else []

    def output(self) -> str:
        return self.log.read_text()

    def close(self) -> None:
        if self.process.poll() is None:
            self.terminate()
            with contextlib.suppress(AssertionError):
                self.wait_gone()
        left = self.family.kill()
        self.process.wait(timeout=WAIT_S)
        assert not left, f"{left} did not end: {self.output()}"


@contextlib.asynccontextmanager
async def serving(
    folder: Path, *neurons: FakeNeuron, **options: Any
) -> AsyncIterator[ServeProcess]:
    """A whole gateway over these nodes, from the time it is ready and has heard of each."""
    process = ServeProcess(folder, *(one.endpoint for one in neurons), **options)
    try:
        async with GatewayClient(process.base_url) as client:
            await client.wait_ready(nodes=len(neurons))
        yield process
    finally:
        await asyncio.to_thread(process.close)
