"""A server's process, from its start to its end by process id."""

import asyncio
import os
import subprocess
import time
from pathlib import Path
from typing import Final

import psutil

from bench.peers.commands import Unavailable, last_words
from bench.peers.peer import Entry, Launch
from bench.peers.processes import below, stop
from bench.serve.target import Target

START_TIMEOUT_S: Final = 600.0
REQUEST_TIMEOUT_S: Final = 900.0
POLL_S: Final = 0.02


class Server:
    """Owns the process and all below it. Its output goes to `log`."""

    def __init__(self, launch: Launch, log: Path) -> None:
        """Start it.

        Raises:
            Unavailable: there is no such program.
        """
        self.launch = launch
        self._log = log
        self._began = time.perf_counter()
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    launch.argv,
                    env={**os.environ, **launch.env},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        except OSError as ex:
            raise Unavailable(f"cannot start {launch.argv[0]}: {ex.strerror}") from ex

    async def first_token(self) -> float:
        """Ask until there is a token; return the seconds since the process was started.

        Raises:
            Unavailable: the process ended, or there was none for long.
        """
        target = self.target(self.launch.entries[-1], context_tokens=None)
        while True:
            result = await target.complete("The", 1)
            if result.error is None:
                return result.chunk_times[0] - self._began
            self._check(result.error)
            await asyncio.sleep(POLL_S)

    async def settled(self) -> None:
        """Return when the server has said that it is ready, if it is one that says so.

        Raises:
            Unavailable: it ended, or did not say it in time.
        """
        ready = self.launch.ready
        while ready is not None and ready not in self._log.read_text(errors="replace"):
            self._check(f"it never said {ready!r}")
            await asyncio.sleep(POLL_S)

    def _check(self, error: str) -> None:
        if self._process.poll() is not None:
            status = self._process.returncode
            raise Unavailable(f"it ended with status {status}: {last_words(self._log)}")
        if time.perf_counter() - self._began > START_TIMEOUT_S:
            raise Unavailable(f"no token within {START_TIMEOUT_S:.0f} s: {error}")

    def target(self, entry: Entry, context_tokens: int | None) -> Target:
        """Return how to ask at `entry`."""
        return Target(
            url=entry.url,
            model=entry.model,
            api="completions",
            pids=[self._pid_of(entry)],
            extra=entry.extra,
            timeout_s=REQUEST_TIMEOUT_S,
            context_tokens=context_tokens,
        )

    def _pid_of(self, entry: Entry) -> int:
        """Return the root of the processes that serve `entry`."""
        if entry.process is not None:
            for process in below(self._process.pid):
                if entry.process in _command_line(process):
                    return process.pid
        return self._process.pid

    async def stop(self) -> None:
        """End it, and whatever is left of it then.

        Streams that were cancelled are closed meanwhile: servers wait for those that are open.
        """
        await asyncio.to_thread(stop, self._process)


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
