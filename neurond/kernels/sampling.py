"""One call of the sampling kernel, for all rows of a step."""

from __future__ import annotations

import ctypes
from array import array
from ctypes import byref
from dataclasses import dataclass, field

from neurond.kernels.sample_abi import Sampled, Sampling


@dataclass(slots=True)
class SampleRows:
    """What a call is told about its rows."""

    packed: list[bytes] = field(default_factory=list)
    """A `sample_abi.SAMPLE_ROW` for each row; it says which part of the lists below is its own."""
    repeated: array[int] = field(default_factory=lambda: array("i"))
    added_tokens: array[int] = field(default_factory=lambda: array("i"))
    added_values: array[float] = field(default_factory=lambda: array("f"))


class SampleKernel:
    """The kernel with its scratch. Called from one thread at a time for one pool."""

    def __init__(
        self, library: ctypes.CDLL, pool: int, vocab_size: int, scratch_bytes: int
    ) -> None:
        """`library` has its functions declared; the pool outlives this object."""
        self._library = library
        self._pool = pool
        self._vocab_size = vocab_size
        self._scratch = (ctypes.c_double * (scratch_bytes // 8))()

    def __call__(self, logits: int, rows: SampleRows) -> ctypes.Array[Sampled]:
        """Choose a token for each row from the logits at an address, which are overwritten."""
        num_rows = len(rows.packed)
        packed = array("Q", b"".join(rows.packed))
        sampled = (Sampled * num_rows)()
        call = Sampling(
            num_rows,
            self._vocab_size,
            logits,
            packed.buffer_info()[0],
            rows.repeated.buffer_info()[0],
            rows.added_tokens.buffer_info()[0],
            rows.added_values.buffer_info()[0],
            sampled,
        )
        self._library.cortex_sample(self._pool, byref(call), self._scratch)
        return sampled
