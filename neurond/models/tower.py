"""The part of a model that looks at images, beside a decoder that the CPU kernels have."""

from collections.abc import Callable
from pathlib import Path

from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedModel

from cortex_core.errors import ModelLoadFailed
from neurond.engine.device import Device
from neurond.engine.vision import Vision
from neurond.models.loader import (
    TORCH_DTYPES,
    TOWER_ATTENTION,
    build_model,
    check_files,
    load_safetensors,
    read_config,
)
from neurond.sources.prepared import PreparedModel


class _LeftOut(nn.Module):
    """Stands where the kernels compute; its weights are not read."""


def load_tower(
    folder: Path,
    manifest: PreparedModel,
    dtype: str,
    device: Device,
    two_way_tokens: int,
    on_progress: Callable[[float], None],
) -> Vision:
    """Load what looks at images of the model in `folder`.

    Args:
        dtype: one of `TORCH_DTYPES`.
        two_way_tokens: what was found out when the model was packed, see `Vision`.
        on_progress: as `load_model` has it.

    Raises:
        ModelLoadFailed: it cannot be read.
    """
    check_files(folder, manifest)
    config = read_config(folder)
    torch_dtype = TORCH_DTYPES[dtype]
    model = build_model(AutoModelForImageTextToText, config, torch_dtype, TOWER_ATTENTION)
    for part in (model.get_decoder(), model.get_output_embeddings()):
        _leave_out(model, part)
    load_safetensors(model, folder, manifest, device.torch_device, on_progress)
    model.eval().requires_grad_(requires_grad=False)
    vision = Vision(model, device.torch_device)
    vision.two_way_tokens = two_way_tokens
    return vision


def _leave_out(model: PreTrainedModel, part: nn.Module) -> None:
    for name, module in model.named_modules():
        if module is part:
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], _LeftOut())
            return
    raise ModelLoadFailed(f"cannot load {type(model).__name__}: {type(part).__name__} is no part")
