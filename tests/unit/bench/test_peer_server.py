"""A peer's process: why it did not come up, and that nothing of it is left."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench.peers import commands
from bench.peers.commands import Unavailable, run
from bench.peers.peer import Entry, Launch
from bench.peers.server import Server
from tests.fakes.process_family import ProcessFamily, alive
from tests.fakes.waiting import wait_until

ENTRY = Entry("http://127.0.0.1:9", "m")
FAMILY = """
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print("ready", flush=True)
signal.pause()
"""


def launch(*argv: str, **options: str) -> Launch:
    return Launch(argv, {}, [ENTRY], **options)


async def test_a_server_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    says = "import sys; print('it needs AVX-512', file=sys.stderr); sys.exit(3)"
    server = Server(launch(sys.executable, "-c", says), tmp_path / "log")
    with pytest.raises(Unavailable, match="ended with status 3: it needs AVX-512"):
        await server.first_token()
    await server.stop()


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot start nowhere/vllm: No such file"):
        Server(launch("nowhere/vllm"), tmp_path / "log")


async def test_stopping_ends_the_children_too(tmp_path: Path) -> None:
    server = Server(launch(sys.executable, "-c", FAMILY, ready="ready"), tmp_path / "log")
    await server.settled()
    (pid,) = server.target(ENTRY, None).pids
    parent = psutil.Process(pid)
    (child,) = parent.children()
    await server.stop()
    wait_until(lambda: not alive(parent))
    wait_until(lambda: not alive(child))


def test_a_command_that_does_not_end_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"

    class Late(subprocess.Popen):
        """Is past its limit once its child is there."""

        def wait(self, timeout: float | None = None) -> int:
            if timeout == commands.LIMIT_S:
                wait_until(lambda: "\nready" in log.read_text())
                raise subprocess.TimeoutExpired(self.args, timeout)
            return super().wait(timeout)

    monkeypatch.setattr(commands.subprocess, "Popen", Late)
    family = ProcessFamily(os.getpid())
    with pytest.raises(Unavailable, match=r"took more than 3600 s: .*ready"):
        run([sys.executable, "-c", FAMILY], log)
    assert not family.running("signal.pause")


def test_a_command_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    says = "print('first'); print('no compiler'); raise SystemExit(2)"
    with pytest.raises(Unavailable, match=r"failed with status 2: .*no compiler"):
        run([sys.executable, "-c", says], tmp_path / "log")
