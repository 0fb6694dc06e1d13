"""Child processes: they die with their parent, and their parent always learns how they ended.

How a child is tied to its parent says `parent`. Because the kernel's signal follows the *thread*
that made it, children are made from the main thread only.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self

import msgspec

from cortex_core.errors import InternalError, Timeout

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
BACKOFF_RESET_AFTER_S = 60.0

_REAP_TIMEOUT_S = 10.0


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of ours in another Python.

    What this one was told of where not to look for modules (-P, -s) goes for that one too:
    otherwise -m puts the working folder first, and a `select.py` there in place of Python's own.
    """
    flags = {"-P": sys.flags.safe_path, "-s": sys.flags.no_user_site}
    options = [option for option, given in flags.items() if given]
    return [sys.executable, *options, "-m", module, *arguments]


def backoff(attempt: int) -> float:
    """Return the seconds to wait before start number `attempt` of a series, from 0.

    0.1 s, doubled with each attempt up to 10 s.
    """
    return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * (1 << min(attempt, 16)))


def next_attempt(attempt: int, ran_s: float) -> int:
    """Return the attempt that follows one which ran for `ran_s`.

    A child that ran for `BACKOFF_RESET_AFTER_S` was well: the series begins anew.
    """
    return 0 if ran_s >= BACKOFF_RESET_AFTER_S else attempt + 1


class DeathPipe:
    """The parent's side of `parent.die_with_parent`. Keep it as long as children shall live.

    Attributes:
        read_fd: goes to children through `pass_fds`; the write end reaches nobody.
    """

    def __init__(self) -> None:
        self.read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC)
        self._closed = False

    def close(self) -> None:
        """Let go: every child that watches this pipe exits. Idempotent."""
        if not self._closed:
            self._closed = True
            os.close(self._write_fd)
            os.close(self.read_fd)


class ExitStatus(msgspec.Struct, frozen=True):
    """How a process ended. `returncode` is negative for a signal, as in `subprocess`."""

    returncode: int

    @property
    def signal(self) -> int | None:
        return -self.returncode if self.returncode < 0 else None

    def __str__(self) -> str:
        if self.returncode >= 0:
            return f"exited with status {self.returncode}"
        return f"killed by signal {-self.returncode}"


class ProcessHandle(Protocol):
    """What is needed of a process to supervise it; `subprocess.Popen` has it."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """Reap the process if it has ended, and return its status as `subprocess` does."""


class ChildProcess:
    """A child of this process, watched by the running asyncio loop through a pidfd.

    Attributes:
        pid: its process id; stale once `exited` is done.
        exited: resolves with the `ExitStatus` when the process has been reaped. Never fails.
    """

    def __init__(self, handle: ProcessHandle) -> None:
        """Watch a process that was started elsewhere, by this process, and not yet reaped.

        Raises:
            InternalError: it cannot be watched; it runs on.
        """
        self.pid = handle.pid
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[ExitStatus] = self._loop.create_future()
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError as ex:
            raise InternalError(f"cannot watch process {self.pid}: {ex.strerror}") from ex
        self._loop.add_reader(self._pidfd, self._on_exit)

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: Path | None = None,
        start_new_session: bool = False,
    ) -> Self:
        """Start `argv` from the loop's thread, which must be the main thread.

        stdin is /dev/null, stdout and stderr are ours; `env` None is our environment. With
        `start_new_session`, a Ctrl-C on the terminal does not reach the child.

        Raises:
            InternalError: the program cannot be started, or this is not the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            raise InternalError(f"cannot start {argv[0]}: not in the main thread")
        try:
            process = subprocess.Popen(
                list(argv),
                env=None if env is None else dict(env),
                pass_fds=tuple(pass_fds),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                start_new_session=start_new_session,
            )
        except OSError as ex:
            raise InternalError(f"cannot start {argv[0]}: {ex.strerror}") from ex
        try:
            return cls(process)
        except BaseException:
            # Without a watcher it would be nobody's.
            process.kill()
            process.wait()
            raise

    @property
    def running(self) -> bool:
        return not self.exited.done()

    def send_signal(self, signum: int) -> None:
        """Send a signal; nothing happens when the process has ended."""
        if self.running:
            # By pidfd: a pid that was reaped and used again is never hit.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signum)

    def kill(self) -> None:
        """Send SIGKILL; `exited` tells when it is gone."""
        self.send_signal(signal.SIGKILL)

    async def stop(self, grace_s: float) -> ExitStatus:
        """End the process: SIGTERM, `grace_s` later SIGKILL, and return when it is reaped.

        When this is cancelled the process is sent SIGKILL at once.

        Raises:
            Timeout: it was not reaped within 10 s after SIGKILL (it hangs in the kernel).
        """
        self.send_signal(signal.SIGTERM)
        try:
            return await self._until_exited(grace_s)
        except TimeoutError:
            self.kill()
        except asyncio.CancelledError:
            self.kill()
            raise
        try:
            return await self._until_exited(_REAP_TIMEOUT_S)
        except TimeoutError:
            raise Timeout(
                f"cannot stop process {self.pid}: still there {_REAP_TIMEOUT_S:g} s after SIGKILL"
            ) from None

    async def _until_exited(self, timeout_s: float) -> ExitStatus:
        # Not wait_for: up to Python 3.11 that loses a cancel that meets the exit.
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(self.exited)

    def _on_exit(self) -> None:
        returncode = self._handle.poll()
        if returncode is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        if not self.exited.done():
            self.exited.set_result(ExitStatus(returncode))


class Stoppable(Protocol):
    """What `stop_or_hurry` ends; `ChildProcess` is one."""

    async def stop(self, grace_s: float) -> object:
        """As `ChildProcess.stop`, with what is the class's own to do before."""

    def send_signal(self, signum: int) -> None:
        """Send a signal to the process that runs now, if one does."""


async def stop_or_hurry(
    child: Stoppable,
    grace_s: float,
    hurry: asyncio.Event,
    *,
    quickly: signal.Signals,
    quick_grace_s: float,
) -> None:
    """End a child within `grace_s`, or sooner once somebody sets `hurry`.

    Then the child is told by `quickly`, and gets SIGKILL `quick_grace_s` later. A cancel is passed
    on to `child.stop`.

    Raises:
        Timeout: as `ChildProcess.stop`.
    """
    stopping = asyncio.create_task(child.stop(grace_s))
    hurrying = asyncio.create_task(hurry.wait())
    try:
        await asyncio.wait({stopping, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            child.send_signal(quickly)
            await asyncio.wait({stopping}, timeout=quick_grace_s)
            child.send_signal(signal.SIGKILL)
        await stopping
    finally:
        hurrying.cancel()
        stopping.cancel()
