"""A child of the gateway's parent process that is started again whenever it ends."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence

from cortex_core.errors import ConfigError, InternalError
from cortex_core.ipc.child import BACKOFF_MAX_S, ChildProcess, backoff, next_attempt
from cortex_core.logs import kv
from cortexd.child_env import CONFIG_STATUS

log = logging.getLogger(__name__)


class Respawned:
    """Keeps one program running until it is stopped. Owns the process.

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
    ) -> None:
        self.name = name
        self.given_up: asyncio.Future[ConfigError] = asyncio.get_running_loop().create_future()
        self._argv = argv
        self._environment = environment
        self._descriptors = descriptors
        self._child: ChildProcess | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process that runs now, if one does."""
        return self._child.pid if self._child is not None and self._child.running else None

    def start(self) -> None:
        """Start the program for the first time, and watch it from then on."""
        self._spawn()
        self._watching = asyncio.create_task(self._watch())

    def signal(self, signum: int) -> None:
        """Send a signal to the process that runs now, if one does."""
        if self._child is not None:
            self._child.send_signal(signum)

    async def stop(self, grace_s: float) -> None:
        """Start it no more and end it: SIGTERM, after `grace_s` SIGKILL. Idempotent."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        if self._child is not None and self._child.running:
            await self._child.stop(grace_s)

    def _spawn(self) -> None:
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
            status = await asyncio.shield(self._child.exited)
            if status.returncode == CONFIG_STATUS:
                why = ConfigError(f"cannot run the {self.name}: its own message says why")
                self.given_up.set_result(why)
                return
            attempt = next_attempt(attempt, loop.time() - began_at)
            wait_s = backoff(attempt - 1 if attempt else 0)
            log.error("child ended", extra=kv(child=self.name, how=status, again_in_s=wait_s))
            await asyncio.sleep(wait_s)
            await self._start_again()
