"""Children that are really killed, and parents too."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from cortex_core.errors import InternalError
from cortex_core.ipc.child import ChildProcess, DeathPipe, stop_or_hurry
from cortex_core.ipc.parent import PARENT_GONE_STATUS
from tests.fakes.waiting import WAIT_S, wait_until

PYTHON = sys.executable
HOLD = "import signal; signal.pause()"
STUBBORN = (
    "import signal, sys\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "open(sys.argv[1], 'w').close()\n"
    "while True: signal.pause()\n"
)
CHILD = (
    "import os, signal, sys\n"
    "from cortex_core.ipc.parent import die_with_parent\n"
    "die_with_parent(int(sys.argv[1]), int(sys.argv[2]))\n"
    "open(sys.argv[3], 'w').write(str(os.getpid()))\n"
    "while True: signal.pause()\n"
)
PARENT = (
    "import os, signal, subprocess, sys\n"
    "from cortex_core.ipc.child import DeathPipe\n"
    "pipe = DeathPipe()\n"
    "subprocess.Popen([sys.executable, '-c', sys.argv[1], str(pipe.read_fd), str(os.getpid()),\n"
    "                  sys.argv[2]], pass_fds=[pipe.read_fd])\n"
    "while True: signal.pause()\n"
)


def written(path: Path) -> bool:
    return path.exists() and path.read_text() != ""


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_exit_is_told_with_its_status() -> None:
    child = ChildProcess.spawn([PYTHON, "-c", "raise SystemExit(3)"])
    status = await asyncio.wait_for(child.exited, WAIT_S)
    assert str(status) == "exited with status 3"
    assert not child.running
    child.kill()
    assert await child.stop(1.0) == status


async def test_kill_is_told_with_its_signal() -> None:
    child = ChildProcess.spawn([PYTHON, "-c", HOLD])
    os.kill(child.pid, signal.SIGKILL)
    status = await asyncio.wait_for(child.exited, WAIT_S)
    assert str(status) == "killed by signal 9"


async def test_stop_terminates_and_reaps() -> None:
    child = ChildProcess.spawn(["sleep", "1000"])
    status = await child.stop(WAIT_S)
    assert status.signal == signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


async def test_stop_kills_what_ignores_the_request(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = ChildProcess.spawn([PYTHON, "-c", STUBBORN, str(ready)])
    wait_until(ready.exists)
    status = await child.stop(0.05)
    assert status.signal == signal.SIGKILL


async def test_cancelled_stop_kills_at_once(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = ChildProcess.spawn([PYTHON, "-c", STUBBORN, str(ready)])
    wait_until(ready.exists)
    stopping = asyncio.create_task(child.stop(1000.0))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert (await asyncio.wait_for(child.exited, WAIT_S)).signal == signal.SIGKILL


async def test_a_stop_that_nobody_hurries_takes_its_grace() -> None:
    child = ChildProcess.spawn([PYTHON, "-c", HOLD])
    await hurried(child, asyncio.Event(), signal.SIGUSR1)
    assert (await child.exited).signal == signal.SIGTERM


@pytest.mark.parametrize(
    ("quickly", "quick_grace_s", "ended_by"),
    [(signal.SIGUSR1, WAIT_S, signal.SIGUSR1), (signal.SIGTERM, 0.05, signal.SIGKILL)],
)
async def test_hurry_cuts_the_grace_short(
    quickly: signal.Signals, quick_grace_s: float, ended_by: signal.Signals, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    child = ChildProcess.spawn([PYTHON, "-c", STUBBORN, str(ready)])
    wait_until(ready.exists)
    hurry = asyncio.Event()
    hurry.set()
    await hurried(child, hurry, quickly, quick_grace_s)
    assert (await child.exited).signal == ended_by


async def test_a_cancelled_stop_kills_at_once_whoever_might_hurry_it(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = ChildProcess.spawn([PYTHON, "-c", STUBBORN, str(ready)])
    wait_until(ready.exists)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hurried(child, asyncio.Event(), signal.SIGTERM), 0.05)
    assert (await asyncio.wait_for(child.exited, WAIT_S)).signal == signal.SIGKILL


async def hurried(
    child: ChildProcess,
    hurry: asyncio.Event,
    quickly: signal.Signals,
    quick_grace_s: float = WAIT_S,
) -> None:
    """A stop whose grace outlasts the test."""
    await stop_or_hurry(child, 1000.0, hurry, quickly=quickly, quick_grace_s=quick_grace_s)


async def test_environment_and_descriptors_reach_the_child(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = ChildProcess.spawn(
        [PYTHON, "-c", "import os; os.write(int(os.environ['FD']), os.getcwd().encode())"],
        env={"FD": str(writer)},
        pass_fds=[writer],
        cwd=tmp_path,
        start_new_session=True,
    )
    os.close(writer)
    assert (await asyncio.wait_for(child.exited, WAIT_S)).returncode == 0
    assert os.read(reader, 1000).decode() == str(tmp_path)
    os.close(reader)


async def test_new_session_keeps_the_terminals_signals_away() -> None:
    child = ChildProcess.spawn(["sleep", "1000"], start_new_session=True)
    assert os.getsid(child.pid) == child.pid
    await child.stop(WAIT_S)


async def test_program_that_is_not_there_is_named() -> None:
    with pytest.raises(InternalError, match=r"cannot start /no/such: No such file"):
        ChildProcess.spawn(["/no/such"])


async def test_child_that_cannot_be_watched_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[int] = []

    def refuse(pid: int) -> int:
        started.append(pid)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(InternalError, match=r"cannot watch process \d+: Too many open files"):
        ChildProcess.spawn(["sleep", "1000"])
    assert not psutil.pid_exists(started[0])


async def test_other_threads_may_not_start_children() -> None:
    failures: list[str] = []

    def start() -> None:
        try:
            ChildProcess.spawn(["true"])
        except InternalError as ex:
            failures.append(ex.message)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(WAIT_S)
    assert failures == ["cannot start true: not in the main thread"]


def test_child_dies_with_its_killed_parent(tmp_path: Path) -> None:
    ready = tmp_path / "pid"
    parent = subprocess.Popen([PYTHON, "-c", PARENT, CHILD, str(ready)])
    wait_until(lambda: written(ready))
    child_pid = int(ready.read_text())
    parent.kill()
    parent.wait(WAIT_S)
    wait_until(lambda: gone(child_pid))


def test_stopped_child_dies_with_its_killed_parent(tmp_path: Path) -> None:
    # Its thread that watches the pipe stands still as well: only the kernel's signal is left.
    ready = tmp_path / "pid"
    parent = subprocess.Popen([PYTHON, "-c", PARENT, CHILD, str(ready)])
    wait_until(lambda: written(ready))
    child = psutil.Process(int(ready.read_text()))
    child.suspend()
    try:
        wait_until(lambda: child.status() == psutil.STATUS_STOPPED)
        parent.kill()
        parent.wait(WAIT_S)
        wait_until(lambda: gone(child.pid))
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def test_child_exits_when_the_pipe_ends_though_the_parent_lives(tmp_path: Path) -> None:
    ready = tmp_path / "pid"
    pipe = DeathPipe()
    child = subprocess.Popen(
        [PYTHON, "-c", CHILD, str(pipe.read_fd), str(os.getpid()), str(ready)],
        pass_fds=[pipe.read_fd],
    )
    wait_until(lambda: written(ready))
    pipe.close()
    pipe.close()
    assert child.wait(WAIT_S) == PARENT_GONE_STATUS


def test_child_whose_parent_was_gone_already_exits_at_once(tmp_path: Path) -> None:
    ready = tmp_path / "pid"
    pipe = DeathPipe()
    child = subprocess.Popen(
        [PYTHON, "-c", CHILD, str(pipe.read_fd), "1", str(ready)], pass_fds=[pipe.read_fd]
    )
    assert child.wait(WAIT_S) == PARENT_GONE_STATUS
    assert not ready.exists()
    pipe.close()
