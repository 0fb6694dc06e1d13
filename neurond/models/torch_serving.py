"""From a loaded model to an engine that torch computes: choice of attention backend, wiring."""

import importlib
import logging
from collections.abc import Sequence

import torch

from cortex_core.errors import OutOfMemory
from cortex_core.logs import kv
from cortex_core.neuron_api import Speculation
from neurond.attention.base import AttentionBackend
from neurond.attention.flash2 import load_flash2
from neurond.attention.reference import ReferenceBackend
from neurond.attention.selection import choose_backend, takes_paged_decodes
from neurond.attention.trial import TYPICAL, Heads, why_not
from neurond.attention.varlen import TorchVarlenBackend
from neurond.engine.decode_graphs import NotRecordable
from neurond.engine.device import Device
from neurond.engine.kv_cache import KvCache
from neurond.engine.kv_shape import kv_block_bytes
from neurond.engine.runner import ModelRunner
from neurond.memory_plan import draft_rows, step_rows
from neurond.models.loader import LoadedModel
from neurond.models.model_serving import ModelServing, kv_sizes, step_tokens_for

log = logging.getLogger(__name__)


def preferred_backend(
    device: Device, dtype: torch.dtype, layers: Sequence[Heads] = (TYPICAL,)
) -> AttentionBackend:
    """Return the fastest backend that serves such layers on `device`.

    Raises:
        torch.AcceleratorError: the device is lost.
    """
    capability = device.compute_capability
    name = choose_backend(
        capability,
        str(dtype).removeprefix("torch."),
        [(each.shape.key_dim, each.shape.value_dim) for each in layers],
        has_flash2=capability is not None and _has_flash2(),
        has_softcap=any(each.params.softcap is not None for each in layers),
    )
    match name:
        case "flash-attn-2":
            return load_flash2()
        case "torch-varlen":
            return _with_paged_decodes(TorchVarlenBackend(), device, dtype, layers)
        case "torch-reference" if capability is not None:
            return _with_paged_decodes(ReferenceBackend(), device, dtype, layers)
        case "torch-reference":
            return ReferenceBackend()


def _with_paged_decodes(
    others: AttentionBackend, device: Device, dtype: torch.dtype, layers: Sequence[Heads]
) -> AttentionBackend:
    """Return `others`, but for decodes, where Triton's kernels are right on this device."""
    if any(not takes_paged_decodes(each.shape.key_dim, each.shape.value_dim) for each in layers):
        return others
    try:
        backend = load_paged_decodes(others)
    except ImportError as ex:
        reason: str | None = str(ex)
    else:
        reason = why_not(backend, layers, dtype, device.torch_device)
    if reason is None:
        return backend
    log.warning("serving without Triton's kernels", extra=kv(cause=reason))
    return others


class TorchServing(ModelServing):
    """A model that torch computes."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        context_tokens: int,
        max_sequences: int,
        kv_cache_bytes: int,
        block_tokens: int,
        speculation: Speculation | None = None,
    ) -> None:
        """Allocate the KV cache; on CUDA try the largest step, and record steps of decodes.

        Raises:
            OutOfMemory: it does not fit what is given, or what the device has.
        """
        backend = attention_backend(loaded)
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
        two_way_tokens = loaded.vision.two_way_tokens if loaded.vision is not None else 0
        step_tokens = step_tokens_for(max_sequences, two_way_tokens, on_cuda=on_cuda)
        max_draft_rows = draft_rows(speculation or "off", on_cuda=on_cuda)
        if on_cuda:
            rows = step_rows(max_sequences, max_draft_rows)
            runner.rehearse(step_tokens, rows, sizes.context_tokens)
            loaded.device.settle()  # what it took is not kept beside what follows
        if backend.can_be_recorded:
            _record(runner, loaded, max_sequences, sizes.context_tokens)
        super().__init__(
            runner, sizes, weights_id, max_sequences, step_tokens, max_draft_rows, two_way_tokens
        )


def attention_backend(loaded: LoadedModel) -> AttentionBackend:
    """Return what serves a model's layers where they are."""
    heads = [Heads(layer.num_heads, layer.shape, layer.params) for layer in loaded.layers]
    return preferred_backend(loaded.device, loaded.dtype, heads)


def _record(
    runner: ModelRunner, loaded: LoadedModel, max_sequences: int, context_tokens: int
) -> None:
    recorder = loaded.device.recorder()
    if recorder is None:
        return
    try:
        runner.record_decodes(recorder, max_sequences=max_sequences, context_tokens=context_tokens)
    except NotRecordable as ex:
        fields = kv(model=loaded.manifest.model_id, cause=ex)
        log.warning("decodes not recorded as graphs: steps take longer", extra=fields)


def _has_flash2() -> bool:
    try:
        load_flash2()
    except ImportError as ex:
        log.warning("serving without flash-attn", extra=kv(cause=ex))
        return False
    return True


def load_paged_decodes(others: AttentionBackend) -> AttentionBackend:
    """Return a backend whose decodes are Triton's kernels.

    Raises:
        ImportError: there is no Triton: torch has it where it is built with CUDA.
    """
    module = importlib.import_module("neurond.attention.paged_decodes")
    backend: AttentionBackend = module.PagedDecodes(others)
    return backend
