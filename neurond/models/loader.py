"""From a prepared folder to a model in memory.

The model is built without memory (on torch's meta device), its weights are read one by one into
their final type and place, and what is not in the file (rotary tables) is computed as transformers
does. Nothing here executes what a file says: safetensors and GGUF only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils.logging import disable_progress_bar

from cortex_core.errors import ModelLoadFailed, OutOfMemory
from neurond.engine.device import Device
from neurond.engine.vision import Vision
from neurond.models.architecture import AttentionLayer, check_config, check_model, trace_attention
from neurond.models.attention_hook import ATTENTION_NAME, register_attention
from neurond.models.experts_choice import choose_experts
from neurond.models.gguf_weights import GgufWeights
from neurond.models.vision_check import check_vision
from neurond.models.weights import LazyTensor, LoadProgress
from neurond.sources.prepared import PreparedModel

MAX_NAMES_TOLD = 3
TOWER_ATTENTION = "sdpa"
TORCH_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model on its device, ready to run; dropping the last reference frees it."""

    model: PreTrainedModel
    layers: tuple[AttentionLayer, ...]
    device: Device
    dtype: torch.dtype
    manifest: PreparedModel
    weights_bytes: int
    """Memory of parameters and buffers, tied ones once."""
    weights_id: str
    """Equal for equal weights in equal format; the kernel variant is added by `serving`."""
    vision: Vision | None = None
    """None where the model takes text only."""
    wide: frozenset[str] = frozenset()
    """Matrices for which a GGUF has more bits than int4."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        size: int = self.model.config.get_text_config().vocab_size
        return size


def load_model(
    folder: Path,
    manifest: PreparedModel,
    dtype: str,
    device: Device,
    on_progress: Callable[[float], None],
) -> LoadedModel:
    """Load the prepared model in `folder`.

    May run in a thread of its own beside engines that step; one load at a time.

    Args:
        dtype: one of `TORCH_DTYPES`.
        on_progress: told the fraction of the file read, from reading threads.

    Raises:
        ModelLoadFailed: names the file, or the architecture, and what is wrong with it.
    """
    torch_dtype = TORCH_DTYPES[dtype]
    check_files(folder, manifest)
    config = read_config(folder)
    check_config(config, manifest.context_tokens)
    register_attention()
    if manifest.images is None:
        model = build_model(AutoModelForCausalLM, config, torch_dtype, ATTENTION_NAME)
    else:
        # The vision tower attends within images, by itself.
        attention = {"text_config": ATTENTION_NAME, "vision_config": TOWER_ATTENTION}
        model = build_model(AutoModelForImageTextToText, config, torch_dtype, attention)
    check_model(model)
    choose_experts(model, torch_dtype, device)
    wide: frozenset[str] = frozenset()
    if manifest.kind == "gguf":
        path = folder / manifest.weights[0].name
        wide = _load_gguf(model, path, device.torch_device, on_progress)
    else:
        load_safetensors(model, folder, manifest, device.torch_device, on_progress)
    model.eval().requires_grad_(requires_grad=False)
    layers = trace_attention(model)
    for index, layer in enumerate(layers):
        layer.module.kv_layer = index  # type: ignore[assignment]  # a module takes any attribute
    vision = None
    if manifest.images is not None:
        vision = Vision(model, device.torch_device)
        vision.two_way_tokens = check_vision(model, folder, vision)
    return LoadedModel(
        model=model,
        layers=layers,
        device=device,
        dtype=torch_dtype,
        manifest=manifest,
        weights_bytes=weights_bytes(model),
        weights_id=f"{manifest.weights_hash}-{dtype}",
        vision=vision,
        wide=wide,
    )


def check_files(folder: Path, manifest: PreparedModel) -> None:
    """Raise `ModelLoadFailed` unless every file of weights is there and as long as it was."""
    for file in manifest.weights:
        path = folder / file.name
        try:
            size_bytes = path.stat().st_size
        except OSError as ex:
            raise ModelLoadFailed(
                f"cannot read {path}: {ex.strerror}; pull the model again"
            ) from ex
        if size_bytes != file.size_bytes:
            raise ModelLoadFailed(
                f"cannot read {path}: it has {size_bytes} bytes instead of {file.size_bytes}; "
                "pull the model again"
            )


def read_config(folder: Path) -> PreTrainedConfig:
    """Return the prepared folder's config; raises `ModelLoadFailed`."""
    path = folder / "config.json"
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as ex:
        raise ModelLoadFailed(f"cannot read {path}: {ex}") from ex
    return config


def build_model(
    kind: Any, config: PreTrainedConfig, dtype: torch.dtype, attention: str | dict[str, str]
) -> PreTrainedModel:
    """Return the model of `config` on the meta device, with parameters of `dtype`.

    `kind` is one of transformers' Auto classes, `attention` a name of its AttentionInterface or
    such names by part of the config.

    Built as float32 and cast afterwards: transformers would set torch's default type, which is one
    for all threads, and an engine may be stepping in another.
    """
    disable_progress_bar()
    try:
        with torch.device("meta"):
            model: PreTrainedModel = kind.from_config(
                config,
                dtype=torch.float32,
                attn_implementation=attention,
                trust_remote_code=False,
            )
    except (ValueError, KeyError, TypeError, ImportError) as ex:
        raise ModelLoadFailed(f"cannot build a model of type {config.model_type!r}: {ex}") from ex
    config.dtype = dtype
    kept = tuple(model._keep_in_fp32_modules_strict or ())  # noqa: SLF001 -- no public accessor
    for prefix, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            full_name = f"{prefix}.{name}"
            if parameter.is_floating_point() and not any(part in full_name for part in kept):
                setattr(module, name, nn.Parameter(parameter.to(dtype), requires_grad=False))
    return model


def _load_gguf(
    model: PreTrainedModel, path: Path, device: torch.device, on_progress: Callable[[float], None]
) -> frozenset[str]:
    """Return the names of matrices for which the file has more bits than int4."""
    file = GgufWeights(path)
    weights = file.state_dict(model, on_progress)
    _fill(model, weights, path, device)
    factors = file.rope_factors()
    if factors is not None:
        _scale_rope(model, factors, path)
    return frozenset(name for name, tensor in weights.items() if tensor.is_wide)


def load_safetensors(
    model: PreTrainedModel,
    folder: Path,
    manifest: PreparedModel,
    device: torch.device,
    on_progress: Callable[[float], None],
) -> None:
    """Read the weights of `model` onto `device`; see `load_model` for errors."""
    progress = LoadProgress(sum(file.size_bytes for file in manifest.weights), on_progress)
    weights: dict[str, LazyTensor] = {}
    with ExitStack() as files:
        for file in manifest.weights:
            path = folder / file.name
            try:
                opened = files.enter_context(safe_open(path, framework="pt", device="cpu"))
            except (OSError, SafetensorError) as ex:
                raise ModelLoadFailed(f"cannot read {path}: {ex}; pull the model again") from ex
            names = list(opened.keys())
            for name in names:
                read = partial(opened.get_tensor, name)
                weights[name] = LazyTensor(read, file.size_bytes // len(names), progress)
        _fill(model, weights, folder / manifest.weights[0].name, device)


def _fill(
    model: PreTrainedModel, weights: Mapping[str, LazyTensor], path: Path, device: torch.device
) -> None:
    """Put `weights` into `model` on `device`, and compute what they do not contain."""
    mapping: list[Any] = [*get_model_conversion_mapping(model)]
    try:
        info, _ = convert_and_load_state_dict_in_model(
            model,
            dict(weights),
            LoadStateDictConfig(device_map={"": device}, weight_mapping=mapping),
        )
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # of the device, not of the file
    except (RuntimeError, ValueError, OSError, SafetensorError) as ex:
        raise ModelLoadFailed(f"cannot read {path}: {ex}") from ex
    model.mark_tied_weights_as_initialized(info)
    for name, buffer in model.named_non_persistent_buffers():
        module = model.get_submodule(name.rpartition(".")[0])
        module.register_buffer(
            name.rpartition(".")[2], torch.empty_like(buffer, device=device), persistent=False
        )
    model.initialize_weights()
    model.tie_weights(missing_keys=info.missing_keys, recompute_mapping=False)
    _refuse_gaps(model, info.conversion_errors, info.mismatched_keys, path)


def _scale_rope(model: PreTrainedModel, factors: torch.Tensor, path: Path) -> None:
    """Divide the model's rotary frequencies by the `factors` from the GGUF at `path`."""
    rotary = getattr(model.get_decoder(), "rotary_emb", None)
    if rotary is None or getattr(rotary, "rope_type", None) != "default":
        raise ModelLoadFailed(f"cannot load {path}: its rotary factors fit no part of the model")
    if factors.shape != rotary.inv_freq.shape:
        raise ModelLoadFailed(
            f"cannot load {path}: it has {len(factors)} rotary factors for "
            f"{len(rotary.inv_freq)} frequencies"
        )
    rotary.inv_freq /= factors.to(rotary.inv_freq.device)


def _refuse_gaps(
    model: PreTrainedModel,
    errors: Mapping[str, str],
    mismatched: Iterable[tuple[str, torch.Size, torch.Size]],
    path: Path,
) -> None:
    if errors:
        name, reason = next(iter(errors.items()))
        if "OutOfMemoryError" in reason:
            raise OutOfMemory(f"cannot hold {name} from {path}: {reason.splitlines()[-1]}")
        raise ModelLoadFailed(f"cannot read {name} from {path}: {reason.splitlines()[-1]}")
    for name, found, expected in mismatched:
        raise ModelLoadFailed(
            f"cannot read {name} from {path}: it has shape {tuple(found)}, "
            f"config.json asks for {tuple(expected)}"
        )
    missing = [name for name, tensor in _tensors(model) if tensor.is_meta]
    if missing:
        told = ", ".join(missing[:MAX_NAMES_TOLD])
        raise ModelLoadFailed(
            f"cannot load {path}: it lacks {len(missing)} weights of the model, such as {told}"
        )


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield parameters and buffers by name, tied ones once."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def weights_bytes(model: nn.Module) -> int:
    """Return the memory of parameters and buffers, tied ones once."""
    return sum(tensor.numel() * tensor.element_size() for _, tensor in _tensors(model))
