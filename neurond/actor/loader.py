"""Loading models beside the loop, so that what is loaded goes on being served.

One thread takes `LoadModel` commands one after another. It touches no socket: what it has to say
waits in a queue, and a descriptor wakes the loop.
"""

import queue
import threading
import time
from collections.abc import Callable

from cortex_core.errors import CortexError, ErrorInfo
from neurond.actor.backend import Backend, ServedModel
from neurond.actor.mailbox import Mailbox
from neurond.protocol import LoadModel, ModelLoading

_PROGRESS_INTERVAL_S = 0.1

LoadOutcome = ModelLoading | tuple[LoadModel, ServedModel | ErrorInfo]


class Loader:
    """Made and called by the loop's thread; runs a thread of its own that ends with the process.

    Attributes:
        wakeup_fd: readable while `take` has something to return.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._commands: queue.SimpleQueue[LoadModel] = queue.SimpleQueue()
        self._outcomes: Mailbox[LoadOutcome] = Mailbox()
        self.wakeup_fd = self._outcomes.wakeup_fd
        threading.Thread(target=self._run, name="loader", daemon=True).start()

    def load(self, command: LoadModel) -> None:
        """Load behind whatever is being loaded; the supervisor asks once per model."""
        self._commands.put(command)

    def take(self) -> list[LoadOutcome]:
        """Return progress and results since the last call, oldest first; never blocks."""
        return self._outcomes.take()

    def _run(self) -> None:
        # No local may hold a result: what the loop unloads would stay in memory, until after the
        # next load.
        while True:
            self._outcomes.put(self._loaded(self._commands.get()))

    def _loaded(self, command: LoadModel) -> LoadOutcome:
        try:
            return command, self._backend.load(command, _Throttled(command, self._outcomes.put))
        except CortexError as ex:
            return command, ex.info()
        except Exception as ex:  # noqa: BLE001 - whatever a library raises fails this load
            return command, self._backend.describe(ex).info()


class _Throttled:
    """A progress callback that passes on at most ten values a second."""

    def __init__(self, command: LoadModel, say: Callable[[ModelLoading], None]) -> None:
        self._command = command
        self._say = say
        self._last_s = 0.0

    def __call__(self, progress: float) -> None:
        now = time.monotonic()
        if now - self._last_s >= _PROGRESS_INTERVAL_S:
            self._last_s = now
            self._say(ModelLoading(self._command.model_id, min(1.0, max(0.0, progress))))
