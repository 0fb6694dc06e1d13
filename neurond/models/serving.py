"""From a loaded model to an engine: sizes of the KV cache, choice of backend, wiring."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cortex_core.errors import OutOfMemory
from cortex_core.logs import kv
from neurond.attention.base import AttentionBackend
from neurond.attention.flash2 import load_flash2
from neurond.attention.reference import ReferenceBackend
from neurond.attention.selection import BackendName, choose_backend
from neurond.engine.batch import Runner
from neurond.engine.config import SchedulerConfig
from neurond.engine.device import Device
from neurond.engine.engine import Engine
from neurond.engine.kv_cache import KvCache, LayerShape, kv_block_bytes
from neurond.engine.runner import ModelRunner
from neurond.models.loader import LoadedModel

log = logging.getLogger(__name__)

STEP_TOKENS = 512
"""Query tokens in one step, at least: what a prompt may hold up those who decode."""


@dataclass(frozen=True, slots=True)
class KvSizes:
    """What the KV cache of a model comes to."""

    num_blocks: int
    block_tokens: int
    context_tokens: int
    """Longest sequence that model and cache can hold."""
    size_bytes: int


def preferred_backend(
    device: Device, dtype: str, head_dims: Iterable[tuple[int, int]] = ()
) -> BackendName:
    """Return the backend that serves models of `dtype` and such heads on `device`."""
    capability = device.compute_capability
    has_flash2 = capability is not None and _has_flash2()
    return choose_backend(capability, dtype, head_dims, has_flash2=has_flash2)


def kv_sizes(
    shapes: Sequence[LayerShape],
    *,
    value_bytes: int,
    context_tokens: int,
    max_sequences: int,
    kv_cache_bytes: int,
    block_tokens: int,
) -> KvSizes:
    """Divide `kv_cache_bytes` into blocks, no more than can ever be used at once.

    Args:
        value_bytes: bytes of one number of K or V.

    Raises:
        OutOfMemory: not even two blocks fit.
    """
    block_bytes = kv_block_bytes(shapes, block_tokens, value_bytes)
    affordable = kv_cache_bytes // block_bytes - 1  # one stays blank, to pad tables
    if affordable < 1:
        raise OutOfMemory(
            f"cannot allocate a KV cache: {kv_cache_bytes} bytes are given, and 2 blocks of "
            f"{block_tokens} tokens take {2 * block_bytes}; give the model a larger KV cache"
        )
    usable = max_sequences * -(-context_tokens // block_tokens)
    num_blocks = min(affordable, usable)
    return KvSizes(
        num_blocks=num_blocks,
        block_tokens=block_tokens,
        context_tokens=min(context_tokens, num_blocks * block_tokens),
        size_bytes=(num_blocks + 1) * block_bytes,
    )


def step_tokens_for(max_sequences: int) -> int:
    """Return the query tokens that a step may have: every sequence can decode in each."""
    return max(STEP_TOKENS, max_sequences)


class ModelServing:
    """A runner with its KV cache, from which engines are made. Owns both until `close`."""

    def __init__(self, runner: Runner, sizes: KvSizes, weights_id: str, max_sequences: int) -> None:
        self.sizes = sizes
        self.weights_id = weights_id
        self._runner: Runner | None = runner
        self._config = SchedulerConfig(
            num_blocks=sizes.num_blocks,
            context_tokens=sizes.context_tokens,
            block_tokens=sizes.block_tokens,
            max_sequences=max_sequences,
            step_tokens=step_tokens_for(max_sequences),
        )

    def new_engine(self) -> Engine:
        """Return an engine over an empty cache; the former one must not step any more."""
        assert self._runner is not None, "the model has been closed"
        return Engine(self._runner, self._config)

    def close(self) -> None:
        """Let go of weights and cache; they are freed with the engines made here."""
        self._runner = None


class Serving(ModelServing):
    """A model that torch computes."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        context_tokens: int,
        max_sequences: int,
        kv_cache_bytes: int,
        block_tokens: int,
    ) -> None:
        """Allocate the KV cache.

        Raises:
            OutOfMemory: it does not fit what is given, or what the device has.
        """
        backend = _backend(loaded)
        multiple = backend.page_multiple_tokens
        shapes = [layer.shape for layer in loaded.layers]
        sizes = kv_sizes(
            shapes,
            value_bytes=loaded.dtype.itemsize,
            context_tokens=min(context_tokens, loaded.manifest.context_tokens),
            max_sequences=max_sequences,
            kv_cache_bytes=kv_cache_bytes,
            block_tokens=-(-block_tokens // multiple) * multiple,
        )
        free_bytes = loaded.device.memory_info().free_bytes
        if sizes.size_bytes > free_bytes:
            raise OutOfMemory(
                f"cannot allocate a KV cache of {sizes.size_bytes} bytes beside "
                f"{loaded.weights_bytes} bytes of weights: {loaded.device.name} has {free_bytes} "
                "bytes free; lower the model's context or number of sequences"
            )
        cache = KvCache(
            shapes,
            num_blocks=sizes.num_blocks,
            block_tokens=sizes.block_tokens,
            dtype=loaded.dtype,
            device=loaded.device.torch_device,
        )
        runner = ModelRunner(loaded.model, loaded.device.torch_device, backend, cache)
        super().__init__(runner, sizes, f"{loaded.weights_id}-{backend.name}", max_sequences)


def build_engine(
    loaded: LoadedModel,
    context_tokens: int,
    max_sequences: int,
    kv_cache_bytes: int,
    block_tokens: int,
) -> Engine:
    """Return an engine for `loaded` with a KV cache of its own; see `Serving`."""
    return Serving(
        loaded,
        context_tokens=context_tokens,
        max_sequences=max_sequences,
        kv_cache_bytes=kv_cache_bytes,
        block_tokens=block_tokens,
    ).new_engine()


def _backend(loaded: LoadedModel) -> AttentionBackend:
    name = preferred_backend(
        loaded.device,
        str(loaded.dtype).removeprefix("torch."),
        [(layer.shape.key_dim, layer.shape.value_dim) for layer in loaded.layers],
    )
    return load_flash2() if name == "flash-attn-2" else ReferenceBackend()


def _has_flash2() -> bool:
    try:
        load_flash2()
    except ImportError as ex:
        log.warning("serving without flash-attn", extra=kv(cause=ex))
        return False
    return True
