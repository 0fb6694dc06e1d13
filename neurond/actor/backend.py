"""The seam between an actor's loop and what computes: one backend per actor process."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from cortex_core.errors import ConfigError, CortexError
from neurond.engine.engine import Engine
from neurond.protocol import Configure, LoadModel, ModelLoaded

LoadProgressCallback = Callable[[float], None]
"""Takes 0 to 1; may be called from the loader thread as often as one likes."""


@dataclass(frozen=True, slots=True)
class OpenedDevice:
    """What the supervisor is told of a device that is open."""

    attention_backend: str
    memory_total_bytes: int
    memory_free_bytes: int


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model in memory. The loop owns its engines, one at a time."""

    loaded: ModelLoaded
    new_engine: Callable[[], Engine]
    """Make an engine with an empty KV cache over the same weights and blocks."""
    free: Callable[[], None]
    """Give weights and KV cache back; the last call, after which no engine may step."""


class Backend(Protocol):
    """A device and what it can load. Only `load` is called outside the loop's thread."""

    def open(self, configure: Configure) -> OpenedDevice:
        """Open the device; the first call.

        Raises:
            CortexError: it cannot be opened; the actor exits.
        """
        ...

    def load(self, command: LoadModel, on_progress: LoadProgressCallback) -> ServedModel:
        """Load a model, in the loader thread, while others are being stepped.

        Raises:
            CortexError: it cannot be loaded; nothing of it stays in memory.
        """
        ...

    def describe(self, error: Exception) -> CortexError:
        """Return what a caller is told about an exception of a library."""
        ...

    def is_poisoned(self, error: Exception) -> bool:
        """Tell whether the device is unusable after `error`, so that the process must end."""
        ...


def make_backend(dotted_name: str) -> Backend:
    """Import and make the backend that `module:name` names.

    Raises:
        ConfigError: there is no such module or name.
    """
    module, _, name = dotted_name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as ex:
        raise ConfigError(f"cannot use actor backend {dotted_name!r}: {ex}") from ex
    return cast("Backend", factory())
