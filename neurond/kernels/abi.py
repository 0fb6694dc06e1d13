"""The C interface of `csrc/abi.h` in ctypes: structs, constants and functions.

Nothing outside of this package touches ctypes; see `library.Kernels`. Names are those of the header
without `cortex_`. Fields that are pointers hold addresses; whoever fills them keeps alive what they
point to.
"""

import ctypes
from collections.abc import Mapping
from ctypes import POINTER, Structure, c_char_p, c_float, c_int32, c_size_t, c_void_p
from typing import Any, Final

ABI: Final = 8
"""Raised when this interface changes, and whenever the same weights give other bits: by what
kernels compute, or by which matrices are int8. It is part of `weights_id`, and a library that was
built with another one is not used."""
BLOCK_TOKENS: Final = 16
GROUP: Final = 32
"""Inputs of a matrix come in multiples of this."""
PANEL: Final = 16
"""Rows of a matrix are packed in multiples of this; a layer's head_dim is one."""

FORMATS: Final = {"bf16": 0, "int8": 1, "int4": 2}
ACTIVATIONS: Final = {"silu": 0, "gelu_tanh": 1, "gelu": 2}


class Linear(Structure):
    """A packed matrix [out_features, in_features] and its bias."""

    _fields_ = (
        ("format", c_int32),
        ("out_features", c_int32),
        ("in_features", c_int32),
        ("reserved", c_int32),
        ("data", c_void_p),
        ("bias", c_void_p),
    )


class Rope(Structure):
    """Rotary tables, [num_positions, rotary_dim / 2] each."""

    _fields_ = (
        ("num_positions", c_int32),
        ("rotary_dim", c_int32),
        ("cos", c_void_p),
        ("sin", c_void_p),
    )


class Layer(Structure):
    """One layer of a decoder."""

    _fields_ = (
        ("input_norm", c_void_p),
        ("qkv", Linear),
        ("q_norm", c_void_p),
        ("k_norm", c_void_p),
        ("sinks", c_void_p),
        ("o", Linear),
        ("post_attention_norm", c_void_p),
        ("pre_ffn_norm", c_void_p),
        ("gate_up", Linear),
        ("down", Linear),
        ("post_ffn_norm", c_void_p),
        ("num_heads", c_int32),
        ("num_kv_heads", c_int32),
        ("head_dim", c_int32),
        ("rope", c_int32),
        ("window", c_int32),
        ("activation", c_int32),
        ("scale", c_float),
        ("softcap", c_float),
    )


class Model(Structure):
    """A decoder: embedding, layers, norm, head."""

    _fields_ = (
        ("vocab_size", c_int32),
        ("hidden", c_int32),
        ("num_layers", c_int32),
        ("num_ropes", c_int32),
        ("norm_eps", c_float),
        ("embedding_scale", c_float),
        ("final_softcap", c_float),
        ("reserved", c_int32),
        ("embedding", c_void_p),
        ("final_norm", c_void_p),
        ("head", Linear),
        ("layers", POINTER(Layer)),
        ("ropes", POINTER(Rope)),
    )


class Batch(Structure):
    """One step."""

    _fields_ = (
        ("num_tokens", c_int32),
        ("num_sequences", c_int32),
        ("num_samples", c_int32),
        ("table_width", c_int32),
        ("kv_format", c_int32),
        ("num_embeds", c_int32),
        ("token_ids", c_void_p),
        ("positions", c_void_p),
        ("slots", c_void_p),
        ("cu_seqlens_q", c_void_p),
        ("seq_lens_k", c_void_p),
        ("block_tables", c_void_p),
        ("sample_rows", c_void_p),
        ("logits", c_void_p),
        ("states", c_void_p),
        ("two_way", c_void_p),
        ("embed_rows", c_void_p),
        ("embeds", c_void_p),
    )


STRUCTS: Final = (Linear, Rope, Layer, Model, Batch)

FUNCTIONS: Final[dict[str, tuple[Any, list[Any]]]] = {
    "cortex_variant": (c_char_p, []),
    "cortex_abi": (c_int32, []),
    "cortex_ask_permission": (c_int32, []),
    "cortex_pool_create": (c_void_p, [c_int32]),
    "cortex_pool_destroy": (None, [c_void_p]),
    "cortex_packed_bytes": (c_size_t, [c_int32] * 3),
    "cortex_pack_rows": (None, [*[c_int32] * 5, c_void_p, c_void_p]),
    "cortex_unpack_rows": (None, [POINTER(Linear), c_int32, c_int32, c_void_p]),
    "cortex_linear_apply": (None, [c_void_p, POINTER(Linear), c_int32, c_void_p, c_void_p]),
    "cortex_kv_bytes": (c_size_t, [POINTER(Layer), c_int32, c_int32]),
    "cortex_scratch_bytes": (c_size_t, [POINTER(Model), c_void_p, *[c_int32] * 3]),
    "cortex_step": (
        c_int32,
        [c_void_p, POINTER(Model), POINTER(Batch), POINTER(c_void_p), c_void_p],
    ),
}
"""Result and argument types of every function."""


def declare(
    library: ctypes.CDLL, functions: Mapping[str, tuple[Any, list[Any]]] = FUNCTIONS
) -> None:
    """Tell ctypes the types of `functions` in `library`.

    Raises:
        AttributeError: it lacks one of them.
    """
    for name, (result, arguments) in functions.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
