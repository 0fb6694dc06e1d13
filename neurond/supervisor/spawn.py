"""Starting an actor process through `multiprocess`, from the main thread, by the spawn method."""

import atexit
import contextlib
import logging
import os
import sys
import threading
import types
from collections.abc import Iterator
from typing import Final

import multiprocess
from multiprocess import resource_tracker

from cortex_core.errors import InternalError
from cortex_core.logs import kv
from neurond.actor.launch import Launch
from neurond.actor.main import actor_main

_log = logging.getLogger(__name__)

REAP_S: Final = 1.0
"""For a process to be gone after SIGKILL, for which the supervisor's loop stands still."""


class ActorProcess:
    """A spawned actor as `cortex_core.ipc.child.ChildProcess` wants it.

    Attributes:
        pid: its process id.
    """

    def __init__(self, launch: Launch) -> None:
        """Start the process.

        Raises:
            InternalError: this is not the main thread, or the system has no room for a process.
        """
        if threading.current_thread() is not threading.main_thread():
            # PDEATHSIG follows the thread that spawned, not the process.
            raise InternalError(f"cannot spawn actor {launch.device}: not in the main thread")
        self._process = multiprocess.get_context("spawn").Process(
            target=actor_main, args=(launch,), name=f"actor-{launch.device}"
        )
        try:
            with _without_main(), _without_tracker():
                self._process.start()
        except OSError as ex:
            raise InternalError(f"cannot spawn actor {launch.device}: {ex}") from ex
        self.pid: int = self._process.pid
        # Exiting without `Supervisor.stop` must not wait for an actor, which multiprocess would.
        atexit.register(self._process.kill)

    def poll(self) -> int | None:
        """Reap the process if it has ended; return its status, or None while it runs."""
        status: int | None = self._process.exitcode
        if status is not None:
            atexit.unregister(self._process.kill)
        return status

    def discard(self) -> None:
        """Kill and reap a process that nobody watches, and give back what belongs to it.

        Blocks, `REAP_S` at most: one that hangs in the kernel is left to this process's own end.
        """
        self._process.kill()
        self._process.join(REAP_S)
        if self.poll() is None:
            _log.error("actor not reaped", extra=kv(pid=self.pid, waited_s=REAP_S))
            return
        self.close()

    def close(self) -> None:
        """Give back the descriptors that belong to a process that was reaped."""
        self._process.close()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Keep the new process from importing this one's main module, which it needs nothing of.

    The module, a console script with a whole daemon behind it, would be imported before the
    process is tied to its parent.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _without_tracker() -> Iterator[None]:
    """Keep `multiprocess` from starting its helper process for named resources; we have none.

    It would be one more interpreter beside each node, and start just before the first actor does.
    """
    made, nowhere = resource_tracker.getfd, os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    resource_tracker.getfd = lambda: nowhere
    try:
        yield
    finally:
        resource_tracker.getfd = made
        os.close(nowhere)
