"""The C interface of `csrc/sample.h` in ctypes, as `abi` has that of `csrc/abi.h`."""

import ctypes
from ctypes import POINTER, Structure, c_float, c_int32, c_size_t, c_uint64, c_void_p
from typing import Any, Final

MAX_LOGPROBS: Final = 20


class SampleRow(Structure):
    """How the token of one row is chosen."""

    _fields_ = (
        ("seed", c_uint64),
        ("choice", c_uint64),
        ("step", c_uint64),
        ("allowed", c_void_p),
        ("first_repeated", c_int32),
        ("num_repeated", c_int32),
        ("first_added", c_int32),
        ("num_added", c_int32),
        ("repetition_penalty", c_float),
        ("temperature", c_float),
        ("top_k", c_int32),
        ("top_p", c_float),
        ("min_p", c_float),
        ("wants_logprobs", c_int32),
        ("num_top", c_int32),
        ("reserved", c_int32),
    )


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
        ("rows", POINTER(SampleRow)),
        ("repeated", c_void_p),
        ("added_tokens", c_void_p),
        ("added_values", c_void_p),
        ("sampled", POINTER(Sampled)),
    )


STRUCTS: Final = (SampleRow, Sampled, Sampling)

FUNCTIONS: Final[dict[str, tuple[Any, list[Any]]]] = {
    "cortex_sample_scratch_bytes": (c_size_t, [c_void_p, c_int32]),
    "cortex_sample": (None, [c_void_p, POINTER(Sampling), c_void_p]),
}
"""Result and argument types of every function."""


def declare(library: ctypes.CDLL) -> None:
    """Tell ctypes the types of the functions in `library`.

    Raises:
        AttributeError: it lacks one of them.
    """
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
