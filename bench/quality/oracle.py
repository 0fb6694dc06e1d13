"""What kernels are held against: a plan computed in float32 by torch, one sequence at a time."""

import torch

from neurond.models.decoder_plan import DecoderPlan
from neurond.models.plan_reference import embed, run_head, run_layer


def reference_logits(plan: DecoderPlan, token_ids: torch.Tensor) -> torch.Tensor:
    """Return the logits [T, vocab_size] after each of the tokens [T] of one sequence."""
    positions = torch.arange(len(token_ids))
    hidden = embed(plan, token_ids)
    for layer in plan.layers:
        hidden = run_layer(plan, layer, hidden, positions)
    return run_head(plan, hidden)
