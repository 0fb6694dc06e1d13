"""The commands that `cortex up` runs: tied to it, with their output in files."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from cortex_core.errors import InternalError
from cortex_core.ipc.child import ChildProcess, ExitStatus, python_command, stop_or_hurry

TAIL_LINES: Final = 15
QUICK_GRACE_S: Final = 3.0


class Daemon:
    """One command. Owns the process and, if it has one, its log file."""

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path | None,
    ) -> None:
        """`log` None sends all output to our stderr, where it can show a progress bar."""
        self.name = name
        self.log = log
        self._environment = environment
        self._argv = python_command("cortexd.up.tied", str(os.getpid()), module, *arguments)
        self._child: ChildProcess | None = None

    def start(self) -> None:
        """Start it, out of reach of the terminal's Ctrl-C.

        Raises:
            InternalError: the program cannot be started, or its log not be written.
        """
        with contextlib.ExitStack() as stack:
            try:
                output: int | BinaryIO = sys.stderr.fileno()
                if self.log is not None:
                    output = stack.enter_context(self.log.open("wb"))
                process = subprocess.Popen(
                    self._argv,
                    env=dict(self._environment),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            except OSError as error:
                cause = f"{error.filename}: {error.strerror}"
                raise InternalError(f"cannot start {self.name}: {cause}") from error
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
        await stop_or_hurry(
            self._child, grace_s, hurry, quickly=signal.SIGTERM, quick_grace_s=QUICK_GRACE_S
        )

    def tail(self) -> str:
        """Return the last lines of its output."""
        if self.log is None or not self.log.exists():
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])
