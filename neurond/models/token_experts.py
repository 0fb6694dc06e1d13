"""Mixtures of experts on GPUs for which torch has no grouped product: a product for each token.

What torch does there reads the experts' sizes back in every layer and multiplies expert by expert.
For a few tokens, each pair of a token and one of its experts is a product of its own here: nothing
is read back, so a step of decodes can be recorded. More tokens go torch's way.
"""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward

from neurond.engine.decode_graphs import LARGEST
from neurond.models.triton_experts import expert_products

NAME = "neurond_tokens"
MOST_TOKENS = LARGEST
"""Of a step that is computed so: every one that is recorded."""
BLOCK_OUTPUTS = 32
BLOCK_INPUTS = 128


def use_token_experts(model: PreTrainedModel) -> None:
    """Have the experts of `model`, which has some, computed by token."""
    ALL_EXPERTS_FUNCTIONS.register(NAME, token_experts)
    model.set_experts_implementation(NAME)


def token_experts(
    self: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """Compute the experts' part of a layer; see transformers' `ExpertsInterface`.

    Args:
        self: the layer's module of experts, as transformers' decorator makes it.
        hidden_states: [T, hidden].
        top_k_index: [T, K], experts of each token.
        top_k_weights: [T, K].

    Returns:
        [T, hidden]
    """
    num_tokens, num_experts = top_k_index.shape
    if num_tokens > MOST_TOKENS:
        grouped: torch.Tensor = grouped_mm_experts_forward(
            self, hidden_states, top_k_index, top_k_weights
        )
        return grouped
    experts, places = top_k_index.reshape(-1).sort()
    first = self.gate_up_proj if self.has_gate else self.up_proj
    name = "gate_up_proj_bias" if self.has_gate else "up_proj_bias"
    products = products_of(
        hidden_states, first, _bias(self, name), experts, places, self.is_transposed, num_experts
    )
    inner = self._apply_gate(products) if self.has_gate else self.act_fn(products)
    outputs = products_of(
        inner, self.down_proj, _bias(self, "down_proj_bias"), experts, places, self.is_transposed, 1
    )
    if self.has_post_expert_norm:
        outputs = self.post_expert_norm(outputs)
    weighted = outputs * top_k_weights.reshape(-1, 1)
    return weighted.view(num_tokens, num_experts, -1).sum(1).to(hidden_states.dtype)


def products_of(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    bias: torch.Tensor | None,
    experts: torch.Tensor,
    places: torch.Tensor,
    is_transposed: bool,
    rows_per_input: int,
) -> torch.Tensor:
    """Return [P, out]: row p is row p // `rows_per_input` of `inputs` times its expert's matrix.

    Args:
        weights: [E, out, in], or [E, in, out] where it `is_transposed`.
        experts: [P], ascending.
        places: [P], which row each of `experts` is of.
    """
    _, outputs, input_size = weights.shape
    output_stride, input_stride = weights.stride()[1:]
    if is_transposed:
        outputs, input_size = input_size, outputs
        output_stride, input_stride = input_stride, output_stride
    out = inputs.new_empty((len(places), outputs))
    kernel: Any = expert_products
    kernel[(len(places), -(-outputs // BLOCK_OUTPUTS))](
        inputs.contiguous(),
        weights,
        bias,
        experts,
        places,
        out,
        outputs,
        input_size,
        weights.stride(0),
        output_stride,
        input_stride,
        rows_per_input,
        block_outputs=BLOCK_OUTPUTS,
        block_inputs=BLOCK_INPUTS,
        has_bias=bias is not None,
    )
    return out


def agrees(dtype: torch.dtype, device: torch.device) -> bool:
    """Tell whether the kernel computes on `device` what torch does, biases and both layouts."""
    random = torch.Generator().manual_seed(0)

    def values(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=random).to(device, dtype)

    inputs, bias = values(3, 200), values(4, 70)
    experts, places = torch.tensor([3, 0, 2, 2, 1, 3], device=device).sort()
    for weights, is_transposed in ((values(4, 70, 200), False), (values(4, 200, 70), True)):
        found = products_of(inputs, weights, bias, experts, places, is_transposed, 2)
        matrices = weights.transpose(1, 2) if is_transposed else weights
        expected = torch.empty_like(found)
        rows = inputs[places // 2].float()[:, None]
        chosen = matrices[experts].float()
        expected[places] = ((rows * chosen).sum(-1) + bias[experts].float()).to(dtype)
        if not torch.allclose(found.float(), expected.float(), rtol=3e-2, atol=3e-1):
            return False
    return True


def _bias(experts: Any, name: str) -> torch.Tensor | None:
    return getattr(experts, name) if experts.has_bias else None
