"""Sinks, for attention functions that have none but return the logarithm of their denominator."""

import torch

from neurond.attention.base import AttentionParams


def with_sinks(out: torch.Tensor, lse: torch.Tensor, params: AttentionParams) -> torch.Tensor:
    """Rescale `out` [T, num_heads, dim] by `lse` [T, num_heads] where there are sinks."""
    if params.sinks is None:
        return out
    share = torch.sigmoid(lse - params.sinks.float())
    return (out.float() * share.unsqueeze(-1)).to(out.dtype)
