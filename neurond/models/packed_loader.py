"""From a prepared folder to weights that are packed for the first time."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cortex_core.errors import ModelLoadFailed, OutOfMemory
from cortex_core.logs import kv
from neurond.engine.device import Device
from neurond.kernels.library import Kernels
from neurond.kernels.packed_file import WeightFormat, packed_path
from neurond.kernels.packed_model import PackedModel
from neurond.memory_plan import packing_bytes
from neurond.models.decoder_plan import DecoderPlan, NoPlan
from neurond.models.loader import LoadedModel, build_unloaded, load_into
from neurond.models.pack import pack_to_file, pack_to_memory
from neurond.models.plan_check import plan_decoder
from neurond.models.plan_reader import beyond_plans
from neurond.sources.prepared import PreparedModel

log = logging.getLogger(__name__)


def pack_model(
    folder: Path,
    manifest: PreparedModel,
    weight_format: WeightFormat,
    kernels: Kernels,
    device: Device,
    on_progress: Callable[[float], None],
) -> Path | PackedModel | NoPlan:
    """Pack the weights into a file in `folder`, or into memory where that cannot be written.

    They are read a few rows at a time, and never all in memory. The file is returned closed:
    whoever opens it needs as much memory as it is large.

    May run in a thread of its own beside engines that step; one load at a time.

    Raises:
        ModelLoadFailed: the model cannot be read.
        OutOfMemory: there is not what packing takes beside the packed weights.
    """
    _refuse_too_large(manifest, device)
    model = build_unloaded(folder, manifest, "float32", device)
    beyond = beyond_plans(model)
    if beyond is not None:
        return beyond
    left = load_into(model, folder, manifest, "float32", device, _silent, leave_matrices=True)
    plan = plan_packing(left)
    if isinstance(plan, NoPlan):
        return plan
    path = packed_path(folder, manifest.weights_hash, weight_format, kernels.layout)
    try:
        pack_to_file(plan, path, manifest.weights_hash, weight_format, kernels, on_progress)
    except ModelLoadFailed as ex:
        told = kv(model=manifest.model_id, cause=ex.message)
        log.warning("packed weights not kept", extra=told)
        return pack_to_memory(plan, manifest.weights_hash, weight_format, kernels, on_progress)
    return path


def _refuse_too_large(manifest: PreparedModel, device: Device) -> None:
    needed = packing_bytes(manifest)
    free_bytes = device.memory_info().free_bytes
    if needed > free_bytes:
        raise OutOfMemory(
            f"cannot pack {manifest.model_id}: it takes {needed} bytes beside the packed weights, "
            f"for one layer in float32 most of all, and {free_bytes} are free; unload another model"
        )


def _silent(_progress: float) -> None:
    """Take no note of what is read before the packing."""


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
