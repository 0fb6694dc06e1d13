"""The C interface of `csrc/sample.h` in ctypes, as `abi` has that of `csrc/abi.h`."""

import struct
from ctypes import POINTER, Structure, c_float, c_int32, c_size_t, c_void_p
from typing import Any, Final

MAX_LOGPROBS: Final = 20


SAMPLE_ROW: Final = struct.Struct("@3QP4i2fi2f3i")
"""`cortex_sample_row`, which ctypes would take as long to fill as the kernel takes for the row.

In order: seed, choice, step; address of `allowed` or 0; first and number of `repeated`, the same of
`added`; repetition penalty, temperature; top_k; top_p, min_p; wants_logprobs, num_top, reserved."""


class Sampled(Structure):
    """The token chosen for one row."""

    _fields_ = (
        ("finite", c_int32),
        ("token", c_int32),
        ("logprob", c_float),
        ("num_top", c_int32),
        ("top_tokens", c_int32 * MAX_LOGPROBS),
        ("top_logprobs", c_float * MAX_LOGPROBS),
    )


class Sampling(Structure):
    """One call."""

    _fields_ = (
        ("num_rows", c_int32),
        ("vocab_size", c_int32),
        ("logits", c_void_p),
        ("rows", c_void_p),
        ("repeated", c_void_p),
        ("added_tokens", c_void_p),
        ("added_values", c_void_p),
        ("sampled", POINTER(Sampled)),
    )


STRUCTS: Final = (Sampled, Sampling)

FUNCTIONS: Final[dict[str, tuple[Any, list[Any]]]] = {
    "cortex_sample_scratch_bytes": (c_size_t, [c_void_p, c_int32]),
    "cortex_sample": (None, [c_void_p, POINTER(Sampling), c_void_p]),
}
"""Result and argument types of every function."""
