"""Whether a model takes images in the way that the engine gives them to it.

The engine puts features in place of embeddings, gives positions, and attends causally, or both ways
among tokens of an image that stand side by side (Gemma 3). A model that wants more than that is
refused: served all the same it would see wrongly without a sign of it. What transformers' own code
does with an image is watched once, up to the first layer of the language model, and compared.
"""

import inspect
from array import array
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask

from cortex_core.canonical import SamplingParams
from cortex_core.errors import CortexError
from neurond.engine.batch import ImageQueries, Row, RowFailed
from neurond.engine.images import ImagePrompt, TokenRuns, place_images, token_runs
from neurond.engine.vision import DEEP, Vision
from neurond.images.processor import ModelImageProcessor
from neurond.models.architecture import refused
from neurond.models.attention_hook import ATTENTION_NAME

WATCHING_NAME: Final = "neurond_watching"
PROBE_PIXELS: Final = (60, 90)
KNOWN: Final = frozenset(
    {
        "attention_mask",
        "cache_position",
        "input_ids",
        "inputs_embeds",
        "output_attentions",
        "output_hidden_states",
        "past_key_values",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)
"""What a language model may be given without being refused; the mask is looked at."""
TOLERANCE: Final = 1e-2
PROBE_WINDOW: Final = 3
"""Of layers that slide while they are watched: one that the probe is longer than."""


class _AtFirstLayer(Exception):
    """Everything that is to be compared is there."""

    def __init__(self, mask: torch.Tensor | None, window: int | None) -> None:
        self.mask = mask
        self.window = window


def _watching_attention(
    _module: nn.Module,
    _query: torch.Tensor,
    _key: torch.Tensor,
    _value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    sliding_window: int | None = None,
    **_others: Any,
) -> tuple[torch.Tensor, None]:
    raise _AtFirstLayer(attention_mask, sliding_window)


def _whole_mask(**wanted: Any) -> torch.Tensor | None:
    return sdpa_mask(**{**wanted, "allow_is_causal_skip": False})


@torch.inference_mode()
def check_vision(model: PreTrainedModel, folder: Path, vision: Vision) -> int:
    """Show `model`, whose files are in `folder`, an image, and compare.

    Returns:
        `Vision.two_way_tokens`.

    Raises:
        ModelLoadFailed: its own code does not do what the engine does.
    """
    processor = ModelImageProcessor(folder)
    pixels = np.random.default_rng(0).integers(0, 255, (*PROBE_PIXELS, 3), dtype=np.uint8)
    try:
        seen = processor.process(Image.fromarray(pixels))
    except (CortexError, KeyError, IndexError, AttributeError, RuntimeError) as ex:
        raise refused(model.config, f"its image processor does not work here: {ex!r}") from ex
    ids = processor.tokenizer(seen.replacement, add_special_tokens=False).input_ids
    token_id = processor.tokens.token_id
    token_ids = [0, 0, *ids, 0, 0]
    given, at_first_layer = _watch(model, token_ids, token_id, seen.inputs)
    images = place_images(token_ids, token_id, [(b"probe", ids.count(token_id), seen.inputs)])
    two_way_tokens = _check_masks(model, given, at_first_layer, images, len(token_ids))
    if two_way_tokens and token_id in (ids[0], ids[-1]):
        raise refused(model.config, "tokens of images side by side attend to each other")
    _check_inputs(model, vision, token_ids, images, given)
    return two_way_tokens


def _watch(
    model: PreTrainedModel, token_ids: list[int], token_id: int, inputs: Any
) -> tuple[dict[str, Any], _AtFirstLayer]:
    """Return what transformers' code gives to the language model, and to its first attention."""
    AttentionInterface.register(WATCHING_NAME, _watching_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(WATCHING_NAME, _whole_mask)
    device = model.device
    ids = torch.tensor([token_ids], device=device)
    is_image = (ids == token_id).long()
    arguments: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    whole: Any = model.base_model
    wanted = inspect.signature(whole.forward).parameters
    arguments |= {
        name: is_image for name in ("mm_token_type_ids", "token_type_ids") if name in wanted
    }
    arguments |= {
        name: torch.from_numpy(np.ascontiguousarray(values)).to(device)
        for name, values in inputs.items()
        if name in wanted
    }
    given: dict[str, Any] = {}
    decoder: Any = model.get_decoder()
    hook = decoder.register_forward_pre_hook(
        lambda _module, _args, named: given.update(named), with_kwargs=True
    )
    text_config = decoder.config
    window = getattr(text_config, "sliding_window", None)
    try:
        text_config._attn_implementation = WATCHING_NAME  # noqa: SLF001 -- no public way
        if window is not None:
            text_config.sliding_window = PROBE_WINDOW
        whole(**arguments)
    except _AtFirstLayer as ex:
        return given, ex
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # of the device, not of the model
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as ex:
        raise refused(model.config, f"it does not take an image: {type(ex).__name__}: {ex}") from ex
    finally:
        text_config._attn_implementation = ATTENTION_NAME  # noqa: SLF001
        if window is not None:
            text_config.sliding_window = window
        hook.remove()
    raise refused(model.config, "its first layer does not attend through AttentionInterface")


def _check_masks(
    model: PreTrainedModel,
    given: dict[str, Any],
    seen: _AtFirstLayer,
    images: ImagePrompt,
    num_tokens: int,
) -> int:
    """Return how many tokens of the image see each other both ways, 0 where none do.

    A language model that is given its masks is given them for each kind of layer.
    """
    masks = given.get("attention_mask")
    if not isinstance(masks, dict):
        masks = {"sliding_attention" if seen.window is not None else "full_attention": seen.mask}
    runs = token_runs(images)
    found = {
        _is_two_way(mask, runs, num_tokens, is_sliding=kind == "sliding_attention")
        for kind, mask in masks.items()
        if mask is not None
    }
    if None in found or len(found) > 1:
        raise refused(model.config, "its attention is neither causal nor two-way within images")
    return max(behind - first for first, behind in runs) if True in found else 0


def _is_two_way(
    mask: torch.Tensor, runs: TokenRuns, num_tokens: int, *, is_sliding: bool
) -> bool | None:
    """Tell whether tokens of a run see each other both ways; None where it is something else."""
    places = torch.arange(num_tokens)
    behind = places[:, None] - places
    causal = behind >= 0
    two_way = causal.clone()
    for first, stop in runs:
        two_way[first:stop, first:stop] = True
    if is_sliding:
        causal &= behind < PROBE_WINDOW
        two_way &= behind < PROBE_WINDOW
    mask = mask.cpu()
    allowed = mask if mask.dtype == torch.bool else mask == 0
    if allowed.shape[-2:] != causal.shape:
        return None
    for kind, expected in ((False, causal), (True, two_way)):
        if bool((allowed == expected).all()):
            return kind
    return None


def _check_inputs(
    model: PreTrainedModel,
    vision: Vision,
    token_ids: list[int],
    images: ImagePrompt,
    given: dict[str, Any],
) -> None:
    row = Row(
        stream=0,
        choice=0,
        seed=0,
        sampling=SamplingParams(),
        token_ids=array("i", token_ids),
        num_prompt_tokens=len(token_ids),
        counts=None,
        images=images,
    )
    ids = torch.tensor([token_ids], device=model.device)
    positions = torch.arange(len(token_ids), device=model.device)[None]
    queries = [ImageQueries(0, 0, len(token_ids), row)]
    try:
        ours = vision.inputs(queries, input_ids=ids, position_ids=positions)
    except RowFailed as ex:
        raise refused(model.config, ex.error.message) from ex
    embedded = ours["inputs_embeds"]
    deep = vision.deep_arguments(embedded)
    unknown = {name for name, value in given.items() if value is not None} - KNOWN - deep.keys()
    if unknown:
        told = ", ".join(sorted(unknown))
        raise refused(model.config, f"its language model takes {told} beside embeddings")
    compared = [(embedded, given["inputs_embeds"])]
    compared += zip(deep.get(DEEP, ()), given.get(DEEP) or (), strict=True)
    if not all(_close(one, other) for one, other in compared):
        raise refused(model.config, "it does not put an image's features in place of embeddings")
    theirs = given.get("position_ids")
    if theirs is not None and not bool((theirs == ours["position_ids"]).all()):
        raise refused(model.config, "it counts positions in an image in a way of its own")


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    difference = (one.float() - other.float()).abs().max()
    return bool(difference <= TOLERANCE * other.float().abs().max())
