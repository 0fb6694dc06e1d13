"""The commands that `cortex up` runs: tied to it, with their output in files."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from cortex_core.errors import InternalError
from cortex_core.ipc.child import ChildProcess, ExitStatus, python_command
from cortex_core.ipc.sdnotify import NOTIFY_VARIABLES

TAIL_LINES: Final = 15
QUICK_GRACE_S: Final = 3.0


class Daemon:
    """One command. Owns the process and, if it has one, its log file."""

    def __init__(self, name: str, module: str, arguments: Sequence[str], log: Path | None) -> None:
        """`log` None sends all output to our stderr, where it can show a progress bar."""
        self.name = name
        self.log = log
        command = python_command(module, *arguments)
        self._argv = python_command("cortexd.up.tied", str(os.getpid()), *command)
        self._child: ChildProcess | None = None

    def start(self) -> None:
        """Start it. A daemon with a log is out of reach of the terminal's Ctrl-C.

        Raises:
            InternalError: the program cannot be started.
        """
        environment = {k: v for k, v in os.environ.items() if k not in NOTIFY_VARIABLES}
        with contextlib.ExitStack() as stack:
            output: int | BinaryIO = sys.stderr.fileno()
            if self.log is not None:
                output = stack.enter_context(self.log.open("wb"))
            try:
                process = subprocess.Popen(
                    self._argv,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=self.log is not None,
                )
            except OSError as error:
                raise InternalError(f"cannot start {self.name}: {error.strerror}") from error
        self._child = ChildProcess(process)

    @property
    def exited(self) -> asyncio.Future[ExitStatus]:
        """Resolves when the process has ended. Only after `start`."""
        assert self._child is not None
        return self._child.exited

    async def stop(self, grace_s: float, hurry: asyncio.Event) -> None:
        """End it: SIGTERM, again once somebody is in a hurry, SIGKILL at last."""
        if self._child is None or not self._child.running:
            return
        stopping = asyncio.create_task(self._child.stop(grace_s))
        hurrying = asyncio.create_task(hurry.wait())
        await asyncio.wait({stopping, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if not stopping.done():
            self._child.send_signal(signal.SIGTERM)
            await asyncio.wait({stopping}, timeout=QUICK_GRACE_S)
            self._child.kill()
        await stopping

    def tail(self) -> str:
        """Return the last lines of its output."""
        if self.log is None or not self.log.exists():
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])
