"""A child of the gateway's parent process that is started again whenever it ends or hangs."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

from cortex_core.errors import ConfigError, CortexError, InternalError
from cortex_core.ipc.child import (
    BACKOFF_MAX_S,
    ChildProcess,
    ExitStatus,
    backoff,
    next_attempt,
)
from cortex_core.ipc.liveness import HangWatch, LivenessReader, LivenessWriter, Phase
from cortex_core.ipc.parent import STACK_DUMP_SIGNAL
from cortex_core.ipc.segment import Segment
from cortex_core.logs import kv
from cortexd.child_env import CONFIG_STATUS

log = logging.getLogger(__name__)

START_DEADLINE_S: Final = 60.0
"""What a child gets to say its first word."""
LOOK_INTERVAL_S: Final = 1.0
"""Between two looks at what a child last said."""
STACK_DUMP_S: Final = 0.2
"""What a child that hangs gets to write its stacks before it is killed."""


class Respawned:
    """Keeps one program running until it is stopped; one that hangs is killed. Owns the process.

    `liveness` is a segment that the program writes its liveness to; it stays the caller's.

    Attributes:
        given_up: resolves with the reason if the program can never run as it is configured.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        descriptors: Sequence[int],
        liveness: Segment,
    ) -> None:
        self.name = name
        self.given_up: asyncio.Future[ConfigError] = asyncio.get_running_loop().create_future()
        self._argv = argv
        self._environment = environment
        self._descriptors = descriptors
        self._liveness = liveness
        self._child: ChildProcess | None = None
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the program for the first time, and watch it from then on."""
        self._spawn()
        self._watching = asyncio.create_task(self._watch())

    def send_signal(self, signum: int) -> None:
        """Send a signal to the process that runs now, if one does."""
        if self._child is not None:
            self._child.send_signal(signum)

    async def stop(self, grace_s: float) -> None:
        """Start it no more and end it: SIGTERM, after `grace_s` SIGKILL. Idempotent.

        When this is cancelled the process is sent SIGKILL at once.

        Raises:
            Timeout: as `ChildProcess.stop`.
        """
        if self._watching is not None:
            self._watching.cancel()
            try:
                # Not itself: its cancel would look like one of this task, and hide one.
                await asyncio.wait({self._watching})
            except asyncio.CancelledError:
                if self._child is not None:
                    self._child.kill()
                raise
        if self._child is not None and self._child.running:
            await self._child.stop(grace_s)

    def _spawn(self) -> None:
        # The last process's word must not be taken for the new one's.
        LivenessWriter(self._liveness).enter(Phase.STARTING, START_DEADLINE_S)
        # A session of its own: Ctrl-C is for the parent, which ends children in order.
        self._child = ChildProcess.spawn(
            self._argv,
            env=self._environment,
            pass_fds=self._descriptors,
            start_new_session=True,
        )

    async def _start_again(self) -> None:
        """Start it, however long the system has no room for one more process."""
        while True:
            try:
                self._spawn()
            except InternalError as ex:
                told = kv(child=self.name, cause=ex.message, again_in_s=BACKOFF_MAX_S)
                log.error("child not started", extra=told)
                await asyncio.sleep(BACKOFF_MAX_S)
            else:
                return

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            assert self._child is not None
            began_at = loop.time()
            status = await self._until_exited(self._child)
            if status.returncode == CONFIG_STATUS:
                why = ConfigError(f"cannot run the {self.name}: its own message says why")
                self.given_up.set_result(why)
                return
            attempt = next_attempt(attempt, loop.time() - began_at)
            wait_s = backoff(attempt - 1 if attempt else 0)
            log.error("child ended", extra=kv(child=self.name, how=status, again_in_s=wait_s))
            await asyncio.sleep(wait_s)
            await self._start_again()

    async def _until_exited(self, child: ChildProcess) -> ExitStatus:
        """Return how it ended; a child that hangs is ended here."""
        reader, watch = LivenessReader(self._liveness), HangWatch()
        while not child.exited.done():
            await asyncio.wait({child.exited}, timeout=LOOK_INTERVAL_S)
            reason = _hang_reason(reader, watch)
            if reason is not None and child.running:
                log.error("child killed", extra=kv(child=self.name, pid=child.pid, cause=reason))
                child.send_signal(STACK_DUMP_SIGNAL)
                await asyncio.wait({child.exited}, timeout=STACK_DUMP_S)
                child.kill()
                await asyncio.shield(child.exited)
        return child.exited.result()


def _hang_reason(reader: LivenessReader, watch: HangWatch) -> str | None:
    try:
        return watch.look(reader.read(), time.monotonic())
    except CortexError as ex:
        # The watch must outlive a child that has written over its own record.
        return ex.message
