"""The states of one model on this node: when to fetch, load, drain and unload it.

One `ModelLifecycle` per model, driven by the supervisor: every method is an event and returns what
is to be done, in order.

| state           | event                   | next      | effects                           |
|-----------------|-------------------------|-----------|-----------------------------------|
| unloaded,failed | load_requested          | fetching  | Fetch                             |
| fetching        | fetched                 | loading   | Load                              |
| loading         | loaded                  | ready     | Settle(None)                      |
| loading         | loaded, to be unloaded  | unloading | Settle(error), Unload             |
| fetching,loading| load_failed             | failed    | Settle(error)                     |
| loading         | actor_died              | failed    | Settle(error)                     |
| loading (again) | actor_died              | loading   | Load, at most `MAX_RELOADS` times |
| loading         | actor_died as asked     | loading   | Load                              |
| ready           | actor_died              | loading   | Load                              |
| ready           | unload, busy            | draining  |                                   |
| ready           | unload, idle or forced  | unloading | Unload                            |
| draining        | drained, or forced      | unloading | Unload                            |
| draining        | actor_died              | unloaded  | Settle(None)                      |
| unloading       | unloaded or actor_died  | unloaded  | Settle(None)                      |
| fetching        | unload                  | unloaded  | Abandon, Settle(error)            |

An event that a row does not name changes nothing. A model whose first load takes its actor down is
not tried again by itself, so that it cannot take the device down in a circle.
"""

import msgspec

from cortex_core.errors import ErrorInfo, ModelNotLoaded
from cortex_core.ids import ModelId
from cortex_core.neuron_api import ModelState

MAX_RELOADS = 3


class Fetch(msgspec.Struct, frozen=True):
    """Make sure that the model is prepared on disk and choose a device."""


class Load(msgspec.Struct, frozen=True):
    """Send the model to its device's actor, as soon as that is ready."""


class Unload(msgspec.Struct, frozen=True):
    """Tell the actor to drop the model; whatever still runs on it fails."""


class Abandon(msgspec.Struct, frozen=True):
    """Stop fetching."""


class Settle(msgspec.Struct, frozen=True):
    """Answer everyone who waits for the load, or the unload, to end."""

    error: ErrorInfo | None


ModelEffect = Fetch | Load | Unload | Abandon | Settle


class ModelLifecycle:
    """State of one model on this node."""

    def __init__(self, model_id: ModelId) -> None:
        self._model_id = model_id
        self._unload_when_loaded = False
        self._reloads = 0
        self.state: ModelState = "unloaded"
        self.error: ErrorInfo | None = None

    def load_requested(self) -> list[ModelEffect]:
        """Someone wants the model; whoever asks later joins."""
        if self.state not in ("unloaded", "failed"):
            return []
        self.state = "fetching"
        self.error = None
        self._reloads = 0
        self._unload_when_loaded = False
        return [Fetch()]

    def fetched(self) -> list[ModelEffect]:
        """The model is on disk and fits a device."""
        if self.state != "fetching":
            return []
        self.state = "loading"
        return [Load()]

    def loaded(self) -> list[ModelEffect]:
        """The actor serves the model."""
        if self.state != "loading":
            return []
        if self._unload_when_loaded:
            self.state = "unloading"
            return [Settle(self._unloaded_error()), Unload()]
        self.state = "ready"
        self._reloads = 0
        return [Settle(None)]

    def load_failed(self, error: ErrorInfo) -> list[ModelEffect]:
        """The model cannot be fetched, placed or loaded."""
        if self.state not in ("fetching", "loading"):
            return []
        return self._fail(error)

    def unload_requested(self, *, busy: bool, force: bool) -> list[ModelEffect]:
        """Someone wants the memory back."""
        match self.state:
            case "fetching":
                self.state = "unloaded"
                return [Abandon(), Settle(self._unloaded_error())]
            case "loading":
                self._unload_when_loaded = True
                return []
            case "ready" if busy and not force:
                self.state = "draining"
                return []
            case "ready":
                return self._unload()
            case "draining" if force or not busy:
                return self._unload()
            case _:
                return []

    def drained(self) -> list[ModelEffect]:
        """Nothing runs on the model any more."""
        return self._unload() if self.state == "draining" else []

    def unloaded(self) -> list[ModelEffect]:
        """The actor has freed the model."""
        if self.state != "unloading":
            return []
        self.state = "unloaded"
        return [Settle(None)]

    def actor_died(self, error: ErrorInfo, *, asked_for: bool = False) -> list[ModelEffect]:
        """The process that held the model, or was loading it, is gone.

        With `asked_for` it was told to go, so no load can be blamed for it.
        """
        match self.state:
            case "ready":
                self._reloads = 1
                self.state = "loading"
                return [Load()]
            case "loading" if self._unload_when_loaded:
                self.state = "unloaded"
                return [Settle(self._unloaded_error())]
            case "loading" if asked_for:
                return [Load()]
            case "loading" if 0 < self._reloads < MAX_RELOADS:
                self._reloads += 1
                return [Load()]
            case "loading":
                return self._fail(error)
            case "draining" | "unloading":
                self.state = "unloaded"
                return [Settle(None)]
            case _:
                return []

    def _unload(self) -> list[ModelEffect]:
        self.state = "unloading"
        return [Unload()]

    def _fail(self, error: ErrorInfo) -> list[ModelEffect]:
        self.state = "failed"
        self.error = error
        self._reloads = 0
        return [Settle(error)]

    def _unloaded_error(self) -> ErrorInfo:
        return ErrorInfo(
            ModelNotLoaded.code,
            f"cannot finish loading {self._model_id}: it was asked to be unloaded meanwhile",
        )
