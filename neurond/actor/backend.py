"""The seam between an actor's loop and what computes: one backend per actor process."""

import gc
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from cortex_core.errors import ConfigError, CortexError, InternalError, OutOfMemory
from cortex_core.neuron_api import Dtype, EmbeddingSizes
from neurond.actor.formats import FormatCompiler, ModelFormats
from neurond.engine.embedding import Embedder
from neurond.engine.engine import Engine
from neurond.memory_plan import EMBED_TOKENS
from neurond.models.model_serving import ModelServing
from neurond.protocol import Configure, LoadModel, ModelLoaded
from neurond.sources.prepared import read_manifest

LoadProgressCallback = Callable[[float], None]
"""Takes 0 to 1; may be called from the loader thread as often as one likes."""


@dataclass(frozen=True, slots=True)
class OpenedDevice:
    """What the supervisor is told of a device that is open."""

    attention_backend: str
    memory_total_bytes: int
    memory_free_bytes: int
    kernels: str | None = None
    """Variant of the CPU kernels."""
    kernels_unavailable_reason: str | None = None


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model in memory. The loop owns its engines, one of each kind at a time."""

    loaded: ModelLoaded
    new_engine: Callable[[], Engine] | None
    """Make an engine with an empty KV cache over the same weights and blocks; None where the model
    cannot generate."""
    free: Callable[[], None]
    """Give weights and KV cache back; the last call, after which no engine may step."""
    formats: FormatCompiler | None
    """None where the model cannot generate."""
    embedder: Embedder | None = None
    """None where it gives no vectors; then `loaded.embedding` is None too."""
    make_resident: Callable[[int], bool] | None = None
    """Make a piece of memory resident that blocks from this one on, all fresh, will need; return
    whether there was one to make. From the loop's thread, between steps; takes milliseconds. None
    where memory is there from the beginning, or not the model's."""
    stepped: Callable[[float], None] | None = None
    """Hear how many seconds a step of an engine that generates took, after what it computed was
    told; may take milliseconds for memory, as `make_resident` does where the device is idle. From
    the loop's thread."""


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
            CortexError: it cannot be loaded; nothing of it stays in memory. After `DeviceFailed`
                the process must end.
        """
        ...

    def describe(self, error: Exception) -> CortexError:
        """Return what a caller is told about an exception of a library."""
        ...

    def is_poisoned(self, error: Exception) -> bool:
        """Tell whether the device is unusable after `error`, so that the process must end."""
        ...


def served(
    command: LoadModel,
    serving: ModelServing,
    embedder: Embedder,
    weights_bytes: int,
    *,
    vocab_size: int,
    dtype: Dtype,
    kv_dtype: Dtype,
    kernels: str,
    kernels_unavailable_reason: str | None = None,
    make_resident: Callable[[int], bool] | None = None,
    stepped: Callable[[float], None] | None = None,
    activation_bytes: int | None = None,
) -> ServedModel:
    """Return a decoder that is ready, as the loop and the supervisor want it.

    `vocab_size` is the width of its logits.
    """
    sizes = serving.sizes
    longest = min(sizes.context_tokens, EMBED_TOKENS)
    loaded = ModelLoaded(
        model_id=command.model_id,
        weights_id=serving.weights_id,
        weights_bytes=weights_bytes,
        kv_cache_bytes=sizes.size_bytes,
        num_blocks=sizes.num_blocks,
        context_tokens=sizes.context_tokens,
        dtype=dtype,
        kv_dtype=kv_dtype,
        kernels=kernels,
        kernels_unavailable_reason=kernels_unavailable_reason,
        embedding=EmbeddingSizes(embedder.dimensions, longest),
        activation_bytes=activation_bytes,
    )
    folder = Path(command.model_dir)
    formats = ModelFormats(folder, vocab_size, read_manifest(folder).eos_token_ids)
    return ServedModel(
        loaded,
        serving.new_engine,
        lambda: _free(serving),
        formats,
        embedder,
        make_resident,
        stepped,
    )


def _free(serving: ModelServing) -> None:
    serving.close()
    # Objects refer to each other in cycles; the memory is wanted now, not at the next collection.
    gc.collect()


def described(error: Exception) -> CortexError:
    """Return an exception of Python's own as one of ours."""
    if isinstance(error, CortexError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory(f"cannot allocate memory: {error}")
    return InternalError(f"cannot go on: {type(error).__name__}: {error}")


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
