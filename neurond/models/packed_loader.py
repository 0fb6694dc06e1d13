"""From a prepared folder to packed weights: mapped if they were packed before, else packed now."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cortex_core.errors import ModelLoadFailed, OutOfMemory
from cortex_core.logs import kv
from neurond.engine.device import Device
from neurond.kernels.library import Kernels
from neurond.kernels.packed_file import WeightFormat, packed_path
from neurond.kernels.packed_model import PackedModel, open_packed
from neurond.memory_plan import weights_bytes
from neurond.models.decoder_plan import NoPlan
from neurond.models.loader import load_model
from neurond.models.pack import pack_to_file, pack_to_memory
from neurond.models.plan_check import plan_decoder
from neurond.sources.prepared import PreparedModel

log = logging.getLogger(__name__)

_READING: Final = 0.6
"""Share of a load's progress that reading the weights is; packing is the rest."""


def load_packed(
    folder: Path,
    manifest: PreparedModel,
    weight_format: WeightFormat,
    device: Device,
    kernels: Kernels,
    on_progress: Callable[[float], None],
) -> PackedModel:
    """Return the model's weights in `weight_format`; they are packed once and kept in `folder`.

    May run in a thread of its own beside engines that step; one load at a time.

    Raises:
        ModelLoadFailed: it cannot be read, or the kernels cannot compute it.
        OutOfMemory: the weights cannot be held in float32 while they are packed.
    """
    path = packed_path(folder, manifest.weights_hash, weight_format, kernels.variant)
    packed = open_packed(path, kernels, manifest.weights_hash, weight_format)
    if packed is not None:
        on_progress(1.0)
        return packed
    _refuse_too_large(manifest, device)
    loaded = load_model(folder, manifest, "float32", device, lambda x: on_progress(x * _READING))
    plan = plan_decoder(loaded.model)
    if isinstance(plan, NoPlan):
        raise ModelLoadFailed(
            f"cannot serve {manifest.model_id} as {weight_format}: {plan.reason}; "
            "leave dtype out of its profile"
        )

    def on_packed(done: float) -> None:
        on_progress(_READING + done * (1.0 - _READING))

    try:
        return pack_to_file(plan, path, manifest.weights_hash, weight_format, kernels, on_packed)
    except ModelLoadFailed as ex:
        told = kv(model=manifest.model_id, cause=ex.message)
        log.warning("packed weights not kept", extra=told)
        return pack_to_memory(plan, manifest.weights_hash, weight_format, kernels, on_packed)


def _refuse_too_large(manifest: PreparedModel, device: Device) -> None:
    needed = weights_bytes(manifest, "float32")
    free_bytes = device.memory_info().free_bytes
    if needed > free_bytes:
        raise OutOfMemory(
            f"cannot pack {manifest.model_id}: its {manifest.num_parameters} weights take {needed} "
            f"bytes in float32 meanwhile, and {free_bytes} are free; unload another model"
        )
