"""What `config.json` says of models that people run, in the keys of its publisher, made small.

Kept are the names and kinds of all fields, how heads divide the width, which share a key, and what
is turned, scaled, tied or windowed; made small are the numbers of layers, heads and tokens.
"""

from typing import Any

from tests.fakes.tiny_models import VOCAB_SIZE, WINDOW

Config = dict[str, Any]

_SMALL: Config = {
    "vocab_size": VOCAB_SIZE,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.04,
    "torch_dtype": "bfloat16",
    "attention_dropout": 0.0,
    "use_cache": True,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def _llama(**fields: object) -> Config:
    return {
        **_SMALL,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "attention_bias": False,
        "mlp_bias": False,
        "pretraining_tp": 1,
        **fields,
    }


def _llama3_scaling(factor: float) -> Config:
    return {
        "factor": factor,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 128,
        "rope_type": "llama3",
    }


def _qwen2(**fields: object) -> Config:
    return {
        **_SMALL,
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "max_window_layers": 2,
        "sliding_window": 32768,
        "use_sliding_window": False,
        **fields,
    }


def _qwen3(**fields: object) -> Config:
    return {
        **_SMALL,
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_act": "silu",
        "head_dim": 128,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
        "rope_scaling": None,
        "attention_bias": False,
        "max_window_layers": 2,
        "sliding_window": None,
        "use_sliding_window": False,
        **fields,
    }


def _mistral(**fields: object) -> Config:
    return {
        **_SMALL,
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        **fields,
    }


def _gemma3(**fields: object) -> Config:
    return {
        **_SMALL,
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "num_hidden_layers": 6,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "rope_local_base_freq": 10000.0,
        "rope_theta": 1000000.0,
        "sliding_window": WINDOW,
        "attention_bias": False,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        **fields,
    }


PUBLISHED: dict[str, Config] = {
    "SmolLM2-135M": _llama(
        hidden_size=192,
        num_attention_heads=3,
        num_key_value_heads=1,
        is_llama_config=True,
        rope_interleaved=False,
        rope_scaling=None,
        rope_theta=100000,
        tie_word_embeddings=True,
    ),
    "Llama-3.2-1B": _llama(
        hidden_size=256,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=64,
        rope_scaling=_llama3_scaling(32.0),
        rope_theta=500000.0,
        tie_word_embeddings=True,
    ),
    "Llama-3.1-70B": _llama(  # eight queries share a key
        hidden_size=256,
        num_attention_heads=8,
        num_key_value_heads=1,
        rope_scaling=_llama3_scaling(8.0),
        rope_theta=500000.0,
        tie_word_embeddings=False,
    ),
    "Qwen2.5-0.5B": _qwen2(  # biases without a word of the config
        hidden_size=448,
        num_attention_heads=7,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        use_mrope=False,
    ),
    "Qwen2.5-7B": _qwen2(
        hidden_size=256, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False
    ),
    "Qwen3-0.6B": _qwen3(
        hidden_size=256, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True
    ),
    "Qwen3-32B": _qwen3(
        hidden_size=160, num_attention_heads=8, num_key_value_heads=1, tie_word_embeddings=False
    ),
    "Mistral-7B-v0.1": _mistral(
        hidden_size=256,
        num_attention_heads=4,
        num_key_value_heads=1,
        rope_theta=10000.0,
        sliding_window=WINDOW,
    ),
    "Mistral-Nemo": _mistral(
        hidden_size=160,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=128,
        rope_theta=1000000.0,
        sliding_window=None,
    ),
    "gemma-2-2b": {
        **_SMALL,
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "hidden_size": 96,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "cache_implementation": "hybrid",
        "query_pre_attn_scalar": 256,
        "sliding_window": WINDOW,
    },
    "gemma-3-270m": _gemma3(
        hidden_size=160,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        _sliding_window_pattern=6,
        layer_types=[*["sliding_attention"] * 5, "full_attention"],
        query_pre_attn_scalar=256,
        rope_scaling=None,
        use_bidirectional_attention=False,
    ),
    "gemma-3-1b": _gemma3(
        hidden_size=288,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        query_pre_attn_scalar=256,
        cache_implementation="hybrid",
        rope_scaling=None,
        sliding_window_pattern=6,
    ),
    "gemma-3-27b": _gemma3(  # of its text
        hidden_size=160,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=128,
        query_pre_attn_scalar=168,
        rope_scaling={"factor": 8.0, "rope_type": "linear"},
        sliding_window_pattern=6,
    ),
}
