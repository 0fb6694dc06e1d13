"""One call of the sampling kernel, for all rows of a step."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from ctypes import byref
from dataclasses import dataclass, field
from typing import NamedTuple

from neurond.kernels.sample_abi import Sampled, SampleRow, Sampling


class RowParams(NamedTuple):
    """How the token of one row is chosen: the fields of `cortex_sample_row`, in its order."""

    seed: int
    choice: int
    step: int
    allowed: int | None
    """Address of a bit per token in 32-bit words, lowest first; None allows all."""
    first_repeated: int
    num_repeated: int
    first_added: int
    num_added: int
    repetition_penalty: float
    temperature: float
    top_k: int
    """0 is no limit, as are 1 for `top_p` and 0 for `min_p`."""
    top_p: float
    min_p: float
    wants_logprobs: bool
    num_top: int


@dataclass(slots=True)
class Lists:
    """The rows' token lists, one after another; `RowParams` tells which part is whose."""

    repeated: array[int] = field(default_factory=lambda: array("i"))
    added_tokens: array[int] = field(default_factory=lambda: array("i"))
    added_values: array[float] = field(default_factory=lambda: array("f"))


class SampleKernel:
    """The kernel with its scratch. Called from one thread at a time for one pool."""

    def __init__(self, library: ctypes.CDLL, pool: int, vocab_size: int) -> None:
        """`library` has its functions declared; the pool outlives this object."""
        self._library = library
        self._pool = pool
        self._vocab_size = vocab_size
        num_bytes = library.cortex_sample_scratch_bytes(pool, vocab_size)
        self._scratch = (ctypes.c_uint64 * (num_bytes // 8))()

    def __call__(self, logits: int, rows: Sequence[RowParams], lists: Lists) -> ctypes.Array[Sampled]:
        """Choose a token for each row from the logits at an address, which are overwritten."""
        params = (SampleRow * len(rows))(*rows)
        sampled = (Sampled * len(rows))()
        call = Sampling(
            num_rows=len(rows),
            vocab_size=self._vocab_size,
            logits=logits,
            rows=params,
            repeated=lists.repeated.buffer_info()[0],
            added_tokens=lists.added_tokens.buffer_info()[0],
            added_values=lists.added_values.buffer_info()[0],
            sampled=sampled,
        )
        self._library.cortex_sample(self._pool, byref(call), self._scratch)
        return sampled
