"""The attention function that transformers' layers call: from their tensors to ours.

`model(..., paged=step)` hands `step` down to every attention layer as a keyword, so nothing about a
step is global. The function is registered under `ATTENTION_NAME`, and no mask function is: then
transformers builds no mask, and a layer that brings one is not plain causal attention.
"""

from typing import Any, Protocol

import torch
from torch import nn
from transformers import AttentionInterface

from cortex_core.errors import ModelLoadFailed
from neurond.attention.base import AttentionParams

ATTENTION_NAME = "neurond_paged"

WITHOUT_EFFECT = frozenset(
    {
        "cache_position",
        "dropout",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_embeddings",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)
"""Keywords that may come along and change nothing about inference over paged K/V."""


class PagedStep(Protocol):
    """What attention layers call during one forward pass."""

    def attend(
        self,
        layer: nn.Module,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        """Store keys and values [T, num_kv_heads, dim], attend from query [T, num_heads, dim].

        Returns:
            [T, num_heads, value dim]
        """
        ...


def paged_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    paged: PagedStep | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend from query [1, num_heads, T, dim] over key and value [1, num_kv_heads, T, dim].

    Returns:
        [1, T, num_heads, value dim], and no weights.

    Raises:
        ModelLoadFailed: the layer asks for attention that paged K/V cannot give. Whether it does is
            a matter of its code, so it shows in the dry run when a model is loaded.
    """
    if paged is None:
        raise _unsupported(module, "its layers do not pass keywords on to attention")
    if attention_mask is not None:
        raise _unsupported(module, "it brings an attention mask of its own")
    if is_causal is False or getattr(module, "is_causal", True) is False:
        raise _unsupported(module, "its attention is not causal")
    for name, given in others.items():
        if given is not None and name not in WITHOUT_EFFECT:
            raise _unsupported(module, f"it gives attention the unknown argument {name!r}")
    params = AttentionParams(
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=sliding_window,
        softcap=softcap,
        sinks=s_aux,
    )
    out = paged.attend(
        module, query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1), params
    )
    return out[None], None


def register_attention() -> None:
    """Make `ATTENTION_NAME` known to transformers; any number of times."""
    AttentionInterface.register(ATTENTION_NAME, paged_attention)


def _unsupported(module: nn.Module, reason: str) -> ModelLoadFailed:
    return ModelLoadFailed(f"cannot serve {type(module).__name__}: {reason}")
