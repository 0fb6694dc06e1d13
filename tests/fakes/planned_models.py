"""Small random models as the loader leaves them: some that have a plan, some that have none."""

from collections.abc import Callable
from functools import partial

import torch
from transformers import (
    ArceeConfig,
    AutoConfig,
    AutoModelForCausalLM,
    CohereConfig,
    Ernie4_5Config,
    Exaone4Config,
    Gemma2Config,
    Gemma3TextConfig,
    Glm4Config,
    GraniteConfig,
    HeliumConfig,
    HunYuanDenseV1Config,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

from neurond.models.attention_hook import ATTENTION_NAME, register_attention
from tests.fakes.published_configs import PUBLISHED
from tests.fakes.tiny_models import COMMON, WINDOW

_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}


def longrope(first_tokens: int) -> dict[str, object]:
    """Return `COMMON` with one rotary table for so many tokens, and another for more."""
    rope_parameters = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0 + 0.1 * place for place in range(8)],
        "long_factor": [2.0 + place for place in range(8)],
    }
    return {
        **COMMON,
        "original_max_position_embeddings": first_tokens,
        "rope_parameters": rope_parameters,
    }


PLANNED: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**COMMON, tie_word_embeddings=True),
    "llama-biases": lambda: LlamaConfig(**COMMON, attention_bias=True, mlp_bias=True),
    "llama-wide": lambda: LlamaConfig(**{**COMMON, "intermediate_size": 2144}),  # 67 groups of 32
    "llama-long": lambda: LlamaConfig(
        **{**COMMON, "max_position_embeddings": 4096, "num_key_value_heads": 1}
    ),
    "llama-yarn": lambda: LlamaConfig(**COMMON, rope_parameters={"rope_theta": 1e4, **_YARN}),
    "qwen2": lambda: Qwen2Config(**COMMON),
    "qwen3": lambda: Qwen3Config(**COMMON),
    "mistral": lambda: MistralConfig(**COMMON, sliding_window=WINDOW),
    "gemma2": lambda: Gemma2Config(
        **COMMON,
        sliding_window=WINDOW,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=10.0,
        query_pre_attn_scalar=32,
        tie_word_embeddings=False,
    ),
    "gemma3": lambda: Gemma3TextConfig(
        **{**COMMON, "num_hidden_layers": 6}, sliding_window=WINDOW, query_pre_attn_scalar=32
    ),
    "llama-dynamic": lambda: LlamaConfig(**COMMON, rope_parameters=_DYNAMIC),
    "phi3": lambda: Phi3Config(**COMMON),
    "phi3-longrope": lambda: Phi3Config(**longrope(256)),
    "smollm3": lambda: SmolLM3Config(**{**COMMON, "num_hidden_layers": 5}),
    "helium": lambda: HeliumConfig(**COMMON),
    "ernie": lambda: Ernie4_5Config(**COMMON, use_bias=True),
    **{name: partial(AutoConfig.for_model, **config) for name, config in PUBLISHED.items()},
}
REFUSED: dict[str, tuple[Callable[[], PreTrainedConfig], str]] = {
    "granite-embedding": (lambda: GraniteConfig(**COMMON, embedding_multiplier=12.0), "embedding"),
    "granite-residual": (lambda: GraniteConfig(**COMMON, residual_multiplier=0.2), "layer 0"),
    "granite-logits": (lambda: GraniteConfig(**COMMON, logits_scaling=8.0), "the head"),
    "olmo2": (lambda: Olmo2Config(**COMMON), "layer 0 lacks a norm"),
    "cohere": (lambda: CohereConfig(**COMMON), "does not turn halves"),
    "glm4": (lambda: Glm4Config(**COMMON), "post_self_attn_layernorm"),
    "exaone4": (lambda: Exaone4Config(**COMMON, sliding_window=WINDOW), "layer 0 lacks a norm"),
    "hunyuan": (lambda: HunYuanDenseV1Config(**COMMON), "query_layernorm"),
    "arcee": (lambda: ArceeConfig(**COMMON), "layer 0 has a product"),
    "qwen3-moe": (
        lambda: Qwen3MoeConfig(
            **COMMON, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32
        ),
        "no plain nn.Linear",
    ),
    "odd-heads": (lambda: LlamaConfig(**{**COMMON, "head_dim": 24}), "heads of 24"),
    "narrow": (lambda: LlamaConfig(**{**COMMON, "intermediate_size": 48}), "48 inputs"),
    "relu": (lambda: LlamaConfig(**COMMON, hidden_act="relu"), "an activation"),
}
"""With what the reason says."""


def make_model(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return the random model of `config`, the same every time, with norms that do something."""
    register_attention()
    torch.manual_seed(20240229)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation=ATTENTION_NAME
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.to(dtype).eval().requires_grad_(requires_grad=False)
