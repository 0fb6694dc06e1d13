"""A node and a gateway of this checkout, each process of them known by what it does."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from bench.overhead.clocks import Spent
from bench.overhead.meter import COUNTS_FILE, Counts, StepCounter
from bench.serve.target import Target
from tests.fakes.model_cache import lend_models
from tests.fakes.ports import free_ports

ACTOR, SUPERVISOR, WORKERS = "actor", "supervisor", "HTTP workers"
FLEET, MASTER, PARENT, HELPERS = "fleet actor", "gunicorn", "parent", "helpers"
ROLES: Final = (ACTOR, SUPERVISOR, WORKERS, FLEET, MASTER, PARENT, HELPERS)
CONTEXT_TOKENS: Final = 2560
KV_CACHE_MB: Final = 1536
STOP_GRACE_S: Final = 20.0
START_TIMEOUT_S: Final = 120.0
POLL_S: Final = 0.1

Usage = dict[str, Spent]
"""By role."""


class Processes:
    """Runs from the beginning of a `with` to its end. Logs and state lie in `folder`."""

    def __init__(
        self, folder: Path, model: str, backend: str, *, dtype: str, streams: int, threads: int
    ) -> None:
        """Say what is to run: the model in `dtype`, with places for so many streams."""
        self._folder = folder
        self._model = model
        self._backend = backend
        self._settings = (
            f'id = "{model}"\ndtype = "{dtype}"\ncontext_tokens = {CONTEXT_TOKENS}\n'
            f"max_sequences = {streams}\nkv_cache_mb = {KV_CACHE_MB}\n"
            'speculation = "off"\n'
        )
        self._threads = threads
        self._node_port, self._port, self._metrics_port = free_ports(3)
        self._started: list[subprocess.Popen[bytes]] = []
        self._roles: dict[int, str] = {}
        self.urls = {
            "neuron": f"http://127.0.0.1:{self._node_port}",
            "gateway": f"http://127.0.0.1:{self._port}",
        }

    def __enter__(self) -> Self:
        counts = self._folder / "counts"
        self._counter = StepCounter(counts)
        node = [sys.executable, "-m", "bench.overhead.node", self._node_config(), self._backend]
        gateway = [sys.executable, "-m", "cortexd.cli", "serve", "--config", self._config()]
        for name, argv in (("node", node), ("gateway", gateway)):
            with (self._folder / f"{name}.log").open("wb") as log:
                self._started.append(
                    subprocess.Popen(
                        argv,
                        env={**os.environ, COUNTS_FILE: str(counts)},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        family = [process for _, process in self._family()]
        for started in reversed(self._started):
            started.terminate()
        for started in self._started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(STOP_GRACE_S)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for started in self._started:
            started.wait()

    def target(self, entry: str) -> Target:
        """Return what is asked at `neuron` or `gateway`."""
        return Target(
            url=self.urls[entry],
            model=self._model,
            api="completions",
            pids=self.pids,
            extra={"ignore_eos": True},
            timeout_s=START_TIMEOUT_S,
            context_tokens=CONTEXT_TOKENS,
        )

    async def answering(self, target: Target) -> None:
        """Return once it answers; ends the measurement with what was logged where it never does."""
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while (await target.complete("The", 4)).error is not None:
            if time.monotonic() > give_up_at:
                sys.exit(f"cannot measure: {target.url} does not answer\n{self.log()}")
            await asyncio.sleep(POLL_S)

    def identify(self) -> None:
        """Find out which process is what, once all of them are there."""
        self._roles = {process.pid: role for role, process in self._family()}

    @property
    def pids(self) -> Sequence[int]:
        return [started.pid for started in self._started]

    def usage(self) -> Usage:
        """Return what each role has taken so far."""
        usage = dict.fromkeys(ROLES, Spent())
        for pid, role in self._roles.items():
            with contextlib.suppress(OSError):
                usage[role] += Spent.of(pid)
        return usage

    def counts(self) -> Counts:
        """Return the steps so far."""
        return self._counter.read()

    def log(self) -> str:
        """Return what the processes had to say."""
        return "".join(path.read_text() for path in sorted(self._folder.glob("*.log")))

    def _family(self) -> Iterator[tuple[str, psutil.Process]]:
        node, gateway = (psutil.Process(started.pid) for started in self._started)
        yield SUPERVISOR, node
        for process in node.children(recursive=True):
            yield (ACTOR if process.name().startswith("neuron:") else HELPERS), process
        yield PARENT, gateway
        for process in gateway.children():
            master = "cortexd.http_server" in " ".join(process.cmdline())
            yield (MASTER if master else FLEET), process
            yield from ((WORKERS, worker) for worker in process.children(recursive=True))

    def _node_config(self) -> str:
        state = self._folder / "state"
        lend_models(state)
        path = self._folder / "neuron.toml"
        path.write_text(
            f'listen = "127.0.0.1"\nport = {self._node_port}\ndevices = ["cpu"]\n'
            f'threads = {self._threads}\nstate_dir = "{state}"\n'
            f'runtime_dir = "{self._folder / "node"}"\n'
            f'[[default_models]]\nmodel_id = "{self._model}"\n[[models]]\n{self._settings}'
        )
        return str(path)

    def _config(self) -> str:
        path = self._folder / "cortex.toml"
        path.write_text(
            'models_config = "models.toml"\n'
            f'[gateway]\nlisten = "127.0.0.1:{self._port}"\n'
            f'metrics_listen = "127.0.0.1:{self._metrics_port}"\n'
            f'runtime_dir = "{self._folder / "gateway"}"\n'
            f'[[neurons]]\nname = "node"\nendpoint = "http://127.0.0.1:{self._node_port}"\n'
        )
        (self._folder / "models.toml").write_text(f'[[models]]\nid = "{self._model}"\n')
        return str(path)


def used(before: Usage, after: Usage) -> Usage:
    """Return what each role took in between."""
    return {role: after[role] - before[role] for role in after}
