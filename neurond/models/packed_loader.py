"""From a prepared folder to weights that are packed for the first time."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from cortex_core.errors import ModelLoadFailed, OutOfMemory
from cortex_core.logs import kv
from neurond.engine.device import Device
from neurond.kernels.library import Kernels
from neurond.kernels.packed_file import WeightFormat, packed_path
from neurond.kernels.packed_model import PackedModel
from neurond.memory_plan import unpacked_bytes
from neurond.models.decoder_plan import DecoderPlan, NoPlan
from neurond.models.loader import LoadedModel, load_model
from neurond.models.pack import pack_to_file, pack_to_memory
from neurond.models.plan_check import plan_decoder
from neurond.sources.prepared import PreparedModel

log = logging.getLogger(__name__)

_READING: Final = 0.6
"""Share of a load's progress that reading the weights is; packing is the rest."""


def load_unpacked(
    folder: Path,
    manifest: PreparedModel,
    device: Device,
    on_progress: Callable[[float], None],
) -> LoadedModel:
    """Load the model's weights in float32, to be packed.

    Raises:
        ModelLoadFailed: it cannot be read.
        OutOfMemory: the weights cannot be held in float32.
    """
    needed = unpacked_bytes(manifest, "float32")
    free_bytes = device.memory_info().free_bytes
    if needed > free_bytes:
        raise OutOfMemory(
            f"cannot pack {manifest.model_id}: its {manifest.num_parameters} weights take {needed} "
            f"bytes in float32 meanwhile, and {free_bytes} are free; unload another model"
        )
    return load_model(folder, manifest, "float32", device, lambda x: on_progress(x * _READING))


def pack_loaded(
    loaded: LoadedModel,
    folder: Path,
    weight_format: WeightFormat,
    kernels: Kernels,
    on_progress: Callable[[float], None],
) -> Path | PackedModel | NoPlan:
    """Pack the weights into a file in `folder`, or into memory where that cannot be written.

    The file is returned closed: whoever opens it needs as much memory again, and should have let go
    of `loaded` by then.

    May run in a thread of its own beside engines that step; one load at a time.
    """
    plan = plan_packing(loaded)
    if isinstance(plan, NoPlan):
        return plan

    def on_packed(done: float) -> None:
        on_progress(_READING + done * (1.0 - _READING))

    weights_hash = loaded.manifest.weights_hash
    path = packed_path(folder, weights_hash, weight_format, kernels.layout)
    try:
        pack_to_file(plan, path, weights_hash, weight_format, kernels, on_packed)
    except ModelLoadFailed as ex:
        told = kv(model=loaded.manifest.model_id, cause=ex.message)
        log.warning("packed weights not kept", extra=told)
        return pack_to_memory(plan, weights_hash, weight_format, kernels, on_packed)
    return path


def plan_packing(loaded: LoadedModel) -> DecoderPlan | NoPlan:
    """Return a plan that is proven to be the model, with the matrices marked that int4 leaves."""
    if loaded.vision is not None and not loaded.vision.is_plain:
        return NoPlan("its images change more than embeddings")
    plan = plan_decoder(loaded.model)
    if isinstance(plan, NoPlan):
        return plan
    if loaded.vision is not None:
        plan = replace(plan, two_way_tokens=loaded.vision.two_way_tokens)
    if not loaded.manifest.layers.int8_parameters:
        return plan
    wide = {id(loaded.model.get_parameter(name)) for name in loaded.wide}
    layers = tuple(layer.with_wide(lambda weight: id(weight) in wide) for layer in plan.layers)
    return replace(plan, layers=layers)
