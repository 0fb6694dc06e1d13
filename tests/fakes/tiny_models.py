"""Small random models of real architectures: attention with all its features, cheap to run."""

from collections.abc import Callable

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3MoeConfig,
)

VOCAB_SIZE = 320
WINDOW = 8

COMMON = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

TINY_CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**COMMON, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**COMMON),
    "qwen3-moe": lambda: Qwen3MoeConfig(
        **COMMON, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32
    ),
    "mistral-window": lambda: MistralConfig(**COMMON, sliding_window=WINDOW),
    "gemma2-softcap": lambda: Gemma2Config(
        **COMMON,
        sliding_window=WINDOW,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=10.0,
        query_pre_attn_scalar=16,
        tie_word_embeddings=False,
    ),
    "gemma3-two-ropes": lambda: Gemma3TextConfig(
        **COMMON,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0},
        },
        query_pre_attn_scalar=16,
    ),
    "gpt-oss-sinks": lambda: GptOssConfig(
        **COMMON,
        sliding_window=WINDOW,
        num_local_experts=4,
        num_experts_per_tok=2,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 32.0,
            "original_max_position_embeddings": 16,
            "truncate": False,
        },
    ),
}


def make_tiny_model(name: str) -> PreTrainedModel:
    """Return the tiny model of that name, the same one every time, in float32."""
    torch.manual_seed(20240229)
    model = AutoModelForCausalLM.from_config(
        TINY_CONFIGS[name](), dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("sinks"):
                parameter.normal_(std=1.0)
    return model.eval()
