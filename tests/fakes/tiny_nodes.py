"""Tiny models on a node under test, and what transformers says with them."""

import torch

from cortex_core.ids import ModelId
from tests.fakes.actor_node import Node
from tests.fakes.prepared_models import prepare_model
from tests.fakes.tiny_models import make_tiny_model

PROMPT = [5, 6, 7, 8, 9]


def add_tiny(node: Node, name: str) -> tuple[ModelId, list[int]]:
    """Make a tiny model; return its id, and the six tokens that transformers has after `PROMPT`."""
    reference = make_tiny_model(name)
    model_id = node.library.adopt(prepare_model(reference, node.library.root / name))
    with torch.inference_mode():
        tokens = reference.generate(
            torch.tensor([PROMPT]),
            attention_mask=torch.ones(1, len(PROMPT), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=6,
            eos_token_id=None,
        )
    return model_id, tokens[0, len(PROMPT) :].tolist()
