"""`cortex up` as a real process on free ports."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from cortex_core.ids import ModelId
from cortexd.up.folders import folders_of
from tests.fakes.ports import free_ports
from tests.fakes.process_family import ProcessFamily, parent_of
from tests.fakes.scripted_models import write_script
from tests.fakes.waiting import WAIT_S, wait_until

READY_TIMEOUT_S = 120.0
STAYS = "Ctrl-C stops it."
FIRST_QUESTION = "Is there anybody?"


class UpProcess:
    """One `cortex up`."""

    def __init__(self, state: Path, *arguments: str) -> None:
        self.state = state
        self.gateway_port, metrics_port, self.neuron_port = free_ports(3)
        ports = ["--gateway-port", str(self.gateway_port), "--metrics-port", str(metrics_port)]
        # Each its own: several of them can run over one state folder.
        log = state.parent / str(self.gateway_port)
        self.stdout, self.stderr = log.with_suffix(".out"), log.with_suffix(".err")
        command = [sys.executable, "-m", "cortexd.cli", "up", "--state-dir", str(state), *ports]
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [*command, "--neuron-port", str(self.neuron_port), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "OMP_NUM_THREADS": "2", "COLUMNS": "200"},
            )
        self.family = ProcessFamily(self.process.pid)

    def daemons(self, module: str) -> list[psutil.Process]:
        """Its own children that run `module` now.

        What these start shows their command line until it has a program of its own.
        """
        return [one for one in self.family.running(module) if parent_of(one) == self.process.pid]

    def says(self) -> str:
        return self.stderr.read_text()

    def wait_up(self) -> None:
        def up() -> bool:
            self.family.alive()
            return STAYS in self.says() or self.process.poll() is not None

        wait_until(up, timeout_s=READY_TIMEOUT_S)
        assert self.process.poll() is None, self.says()

    def wait_end(self) -> int:
        def ended() -> bool:
            self.family.alive()
            return self.process.poll() is not None

        wait_until(ended, timeout_s=READY_TIMEOUT_S)
        self.family.wait_gone()
        return self.process.returncode

    def kill(self) -> None:
        """Leave nothing behind, whatever went wrong."""
        self.family.kill()
        self.process.wait(timeout=WAIT_S)
        # Empty by now; one that was killed cannot remove it itself.
        shutil.rmtree(folders_of(self.state).run, ignore_errors=True)

    def sockets(self) -> list[Path]:
        run = folders_of(self.state).run
        return [path for path in (*self.state.rglob("*"), *run.rglob("*")) if path.is_socket()]


@contextlib.contextmanager
def scripted_up(root: Path, *rules: dict[str, Any], **settings: Any) -> Iterator["ScriptedUp"]:
    """A fleet of one node with one scripted model, which is ready; it leaves nothing behind."""
    first = {"contains": [FIRST_QUESTION], "answer": "Yes."}
    model = write_script(root / "script", first, *rules, **settings)
    up = ScriptedUp(root / "state", "--model", model, "--ask", FIRST_QUESTION)
    up.model = model
    try:
        up.wait_up()
        yield up
        up.process.send_signal(signal.SIGINT)
        assert up.wait_end() == 0, up.says()
        assert up.sockets() == []
    finally:
        up.kill()


class ScriptedUp(UpProcess):
    """See `scripted_up`."""

    model: ModelId

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def node_url(self) -> str:
        return f"http://127.0.0.1:{self.neuron_port}"
