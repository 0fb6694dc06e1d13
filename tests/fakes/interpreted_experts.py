"""Runs the experts' Triton kernel by Triton's interpreter, in models; writes differences as JSON.

A process of its own, with TRITON_INTERPRET=1: that is read when Triton is first imported.
"""

import json
import sys

import torch

from neurond.models import token_experts
from tests.fakes.tiny_models import make_tiny_model

CPU = torch.device("cpu")


def difference(name: str, num_tokens: int) -> float:
    """Return how far logits are from those with experts as transformers has them by itself."""
    model = make_tiny_model(name)
    tokens = torch.arange(num_tokens)[None]
    with torch.inference_mode():
        expected = model(tokens).logits
        token_experts.use_token_experts(model)
        found = model(tokens).logits
    return float((found - expected).abs().max())


def main() -> None:
    called = []
    products_of = token_experts.products_of

    def counted(*args):
        called.append(len(args[4]))
        return products_of(*args)

    token_experts.products_of = counted
    told = {name: difference(name, 5) for name in ("qwen3-moe", "gpt-oss-sinks")}
    told["products"] = list(called)
    called.clear()
    token_experts.MOST_TOKENS = 4
    told["many tokens"] = difference("qwen3-moe", 5)
    told["products of many"] = list(called)
    told["agrees"] = [token_experts.agrees(each, CPU) for each in (torch.float32, torch.float16)]
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
