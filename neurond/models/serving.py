"""From a loaded model to an engine that torch computes: choice of attention backend, wiring."""

import logging
from collections.abc import Iterable

from cortex_core.errors import OutOfMemory
from cortex_core.logs import kv
from cortex_core.neuron_api import Speculation
from neurond.attention.base import AttentionBackend
from neurond.attention.flash2 import load_flash2
from neurond.attention.reference import ReferenceBackend
from neurond.attention.selection import BackendName, choose_backend
from neurond.engine.device import Device
from neurond.engine.engine import Engine
from neurond.engine.kv_cache import KvCache
from neurond.engine.kv_shape import kv_block_bytes
from neurond.engine.runner import ModelRunner
from neurond.models.loader import LoadedModel
from neurond.models.model_serving import ModelServing, draft_rows, kv_sizes

log = logging.getLogger(__name__)


def preferred_backend(
    device: Device, dtype: str, head_dims: Iterable[tuple[int, int]] = ()
) -> BackendName:
    """Return the backend that serves models of `dtype` and such heads on `device`."""
    capability = device.compute_capability
    has_flash2 = capability is not None and _has_flash2()
    return choose_backend(capability, dtype, head_dims, has_flash2=has_flash2)


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
        speculation: Speculation = "off",
    ) -> None:
        """Allocate the KV cache.

        Raises:
            OutOfMemory: it does not fit what is given, or what the device has.
        """
        backend = _backend(loaded)
        multiple = backend.page_multiple_tokens
        whole_pages = -(-block_tokens // multiple) * multiple
        shapes = [layer.shape for layer in loaded.layers]
        sizes = kv_sizes(
            kv_block_bytes(shapes, whole_pages, loaded.dtype.itemsize),
            context_tokens=min(context_tokens, loaded.manifest.context_tokens),
            max_sequences=max_sequences,
            kv_cache_bytes=kv_cache_bytes,
            block_tokens=whole_pages,
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
        device = loaded.device.torch_device
        runner = ModelRunner(loaded.model, device, backend, cache, loaded.vision)
        weights_id = f"{loaded.weights_id}-{backend.name}"
        on_cuda = loaded.device.compute_capability is not None
        rows = draft_rows(speculation, on_cuda=on_cuda)
        super().__init__(runner, sizes, weights_id, max_sequences, rows)


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
