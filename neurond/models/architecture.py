"""Which models can be served by paged attention over a flat batch, and what K/V they keep.

What a config or class says is checked before weights are read; what only shows when the layers run
is checked by a dry run of two tokens afterwards. A model that is not understood is refused: served
all the same it would give wrong text without a sign of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from cortex_core.errors import ModelLoadFailed
from neurond.attention.base import AttentionParams
from neurond.engine.kv_shape import LayerShape
from neurond.sources.positions import served_positions

KNOWN_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """One layer that keeps K/V, in the order in which a forward pass meets them."""

    module: nn.Module
    shape: LayerShape
    num_heads: int
    params: AttentionParams
    knows_positions: bool
    """Whether its queries are turned by their positions."""


def check_config(config: PreTrainedConfig, context_tokens: int) -> None:
    """Refuse what the config rules out, of a model that was prepared for so many tokens.

    Raises:
        ModelLoadFailed: with the architecture and the reason.
    """
    if config.is_encoder_decoder:
        raise refused(config, "it has an encoder, and only decoders can be served")
    text_config = config.get_text_config()
    layer_types = set(getattr(text_config, "layer_types", None) or ())
    if unknown := layer_types - KNOWN_LAYER_TYPES:
        raise refused(
            config,
            f"it has layers of type {', '.join(sorted(unknown))}, which keep other state than K/V",
        )
    positions = served_positions(text_config)
    if context_tokens > positions:
        raise refused(
            config,
            f"it was prepared for {context_tokens} tokens, and its positions are right up to "
            f"{positions}; remove its folder and pull it again",
        )


def check_model(model: PreTrainedModel) -> None:
    """Refuse what the model's class and modules rule out.

    Raises:
        ModelLoadFailed: with the architecture and the reason.
    """
    if getattr(model, "_is_stateful", False) or any(
        isinstance(module, nn.Conv1d) for module in model.modules()
    ):
        raise refused(model.config, "it mixes tokens outside of attention")
    if not getattr(model, "_supports_attention_backend", False):
        raise refused(model.config, "its attention cannot be replaced through AttentionInterface")


def trace_attention(model: PreTrainedModel) -> tuple[AttentionLayer, ...]:
    """Run two tokens through `model` and return the layers that attended.

    Raises:
        ModelLoadFailed: some layers do not attend through the interface, or not as they say.
    """
    config = model.config
    trace = _Trace()
    tokens = torch.zeros((1, 2), dtype=torch.int64, device=model.device)
    positions = torch.arange(2, device=model.device)[None]
    with torch.inference_mode():
        model(
            input_ids=tokens,
            position_ids=positions,
            use_cache=False,
            logits_to_keep=torch.ones(1, dtype=torch.int64, device=model.device),
            paged=trace,
        )
    text_config = config.get_text_config()
    if len(trace.layers) != text_config.num_hidden_layers:
        raise refused(
            config,
            f"{len(trace.layers)} of its {text_config.num_hidden_layers} layers attend through "
            "AttentionInterface",
        )
    _check_windows(config, trace.layers)
    return tuple(trace.layers)


@dataclass(slots=True)
class _Trace:
    """A step that notes who attends, and answers with zeros."""

    layers: list[AttentionLayer] = field(default_factory=list)

    def attend(
        self,
        layer: nn.Module,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        shape = LayerShape(keys.shape[1], keys.shape[2], values.shape[2])
        # The same token twice, behind attention that answers with zeros: only positions differ.
        is_turned = not (query.any() and torch.allclose(query[0], query[1], rtol=1e-3, atol=1e-6))
        self.layers.append(AttentionLayer(layer, shape, query.shape[1], params, is_turned))
        return query.new_zeros((*query.shape[:2], values.shape[2]))


def _check_windows(config: PreTrainedConfig, layers: Sequence[AttentionLayer]) -> None:
    """A layer that slides by its type but gives no window relied on a mask that is not built."""
    types = getattr(config.get_text_config(), "layer_types", None) or ()
    for layer_type, layer in zip(types, layers, strict=False):
        window = layer.params.window
        if (layer_type == "sliding_attention") != (window is not None):
            raise refused(config, f"a layer of type {layer_type} attends with the window {window}")


def refused(config: PreTrainedConfig, reason: str) -> ModelLoadFailed:
    """Return the error for a model that cannot be served."""
    names = getattr(config, "architectures", None) or [config.model_type]
    return ModelLoadFailed(f"cannot serve {names[0]}: {reason}")
