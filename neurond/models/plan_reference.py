"""The parts of a `DecoderPlan` in plain torch, in float32, a sequence at a time: slow and obvious.

What the kernels have to agree with, but for rounding, and what `plan_check` holds models against.
"""

import torch
from torch.nn import functional

from neurond.models.decoder_plan import DecoderPlan, PlanLayer, PlanLinear
from neurond.models.file_matrix import read_numbered
from neurond.models.plan_reader import ACTIVATIONS


def embed(plan: DecoderPlan, token_ids: torch.Tensor) -> torch.Tensor:
    """Return [T, hidden]."""
    return read_numbered(plan.embedding, token_ids) * plan.embedding_scale


def run_layer(
    plan: DecoderPlan, layer: PlanLayer, hidden: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Return what `layer` makes of the residual `hidden` [T, hidden] of one sequence."""
    eps = plan.norm_eps
    normed = _rms_norm(hidden, layer.input_norm, eps)
    out = _linear(layer.o, _attention(plan, layer, normed, positions))
    if layer.post_attention_norm is not None:
        out = _rms_norm(out, layer.post_attention_norm, eps)
    hidden = hidden + out
    gate, up = _linear(layer.gate_up, _rms_norm(hidden, layer.pre_ffn_norm, eps)).chunk(2, -1)
    out = _linear(layer.down, ACTIVATIONS[layer.activation](gate) * up)
    if layer.post_ffn_norm is not None:
        out = _rms_norm(out, layer.post_ffn_norm, eps)
    return hidden + out


def run_head(plan: DecoderPlan, hidden: torch.Tensor) -> torch.Tensor:
    """Return the logits [T, vocab_size] of the last layer's `hidden` [T, hidden]."""
    logits = _linear(plan.head, _rms_norm(hidden, plan.final_norm, plan.norm_eps))
    if plan.final_softcap is not None:
        logits = plan.final_softcap * torch.tanh(logits / plan.final_softcap)
    return logits


def _attention(
    plan: DecoderPlan, layer: PlanLayer, normed: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Return [T, num_heads * head_dim]."""
    count = (layer.num_heads, layer.num_kv_heads, layer.num_kv_heads)
    heads = _linear(layer.qkv, normed).unflatten(-1, (-1, layer.head_dim)).transpose(0, 1)
    query, keys, values = heads.split(count)  # [heads, T, head_dim] each
    if layer.q_norm is not None:
        query = _rms_norm(query, layer.q_norm, plan.norm_eps)
    if layer.k_norm is not None:
        keys = _rms_norm(keys, layer.k_norm, plan.norm_eps)
    if layer.rope is not None:
        cos, sin = plan.ropes[layer.rope].compute(positions)
        query, keys = _rotate(query, cos, sin), _rotate(keys, cos, sin)
    group = layer.num_heads // layer.num_kv_heads
    scores = query @ keys.repeat_interleave(group, 0).mT * layer.scale
    if layer.softcap is not None:
        scores = layer.softcap * torch.tanh(scores / layer.softcap)
    scores = scores.masked_fill(~_seen(len(positions), layer.window), -torch.inf)
    if layer.sinks is not None:
        sinks = layer.sinks.float().view(-1, 1, 1).expand(-1, len(positions), 1)
        scores = torch.cat((scores, sinks), -1)
    weights = scores.softmax(-1)[..., : len(positions)]
    attended: torch.Tensor = weights @ values.repeat_interleave(group, 0)
    return attended.transpose(0, 1).flatten(1)


def _seen(num_tokens: int, window: int | None) -> torch.Tensor:
    """Return [T, T], true where the query of a row sees the key of a column."""
    order = torch.arange(num_tokens)
    distance = order[:, None] - order
    seen: torch.Tensor = (distance >= 0) & (distance < (num_tokens if window is None else window))
    return seen


def _rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn dimension i with dimension i + rotary_dim / 2, of heads [heads, T, head_dim]."""
    half = cos.shape[-1]
    first, second, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), -1)


def _rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def _linear(linear: PlanLinear, x: torch.Tensor) -> torch.Tensor:
    return functional.linear(x, linear.rows(0, linear.out_features), linear.bias())
