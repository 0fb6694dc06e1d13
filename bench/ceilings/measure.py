"""Compiles the loops of `ceilings.c` for this processor and times them on all our cores."""

import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

SOURCE: Final = Path(__file__).parent / "ceilings.c"
BLOCK_BYTES: Final = 256 << 20
"""For each thread: far beyond any cache."""
READ_BYTES: Final = 16 << 20
ROUNDS: Final = 200_000
TRIES: Final = 64
"""Each takes about a millisecond: on a machine that does other work some run undisturbed."""


@dataclass(frozen=True)
class Ceilings:
    """The best of some tries, of all cores together."""

    read_gb_per_s: float
    float_gmac_per_s: float
    bf16_gmac_per_s: float
    byte_gmac_per_s: float


@cache
def ceilings() -> Ceilings | None:
    """Return what this machine reaches; None where nothing can be compiled, or it is not x86."""
    library = _library()
    if library is None:
        return None
    threads = len(os.sched_getaffinity(0))
    blocks = [_aligned(BLOCK_BYTES) for _ in range(threads)]

    def read(thread: int, turn: int) -> int:
        start = turn * READ_BYTES % BLOCK_BYTES
        library.read_all(blocks[thread].ctypes.data + start, READ_BYTES)
        return READ_BYTES

    def multiply_floats(_thread: int, _turn: int) -> int:
        return _multiplied(library.multiply_floats)

    def multiply_bf16(_thread: int, _turn: int) -> int:
        return _multiplied(library.multiply_bf16)

    def multiply_bytes(_thread: int, _turn: int) -> int:
        return _multiplied(library.multiply_bytes)

    with ThreadPoolExecutor(threads) as pool:
        loops = (read, multiply_floats, multiply_bf16, multiply_bytes)
        return Ceilings(*(_best(pool, threads, loop) for loop in loops))


def _best(pool: ThreadPoolExecutor, threads: int, work: Callable[[int, int], int]) -> float:
    """Return 1e9 units per second of all threads; `work` says what one has done in a turn."""
    rates = []
    for turn in range(TRIES):
        began = time.perf_counter()
        done = sum(pool.map(work, range(threads), [turn] * threads))
        rates.append(done / (time.perf_counter() - began))
    return max(rates) / 1e9


def _multiplied(function: Callable[..., int]) -> int:
    return function(ROUNDS, (ctypes.c_int32 * 16)(3, 2))


def _aligned(num_bytes: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Return written memory that begins at a multiple of 64."""
    whole = np.ones(num_bytes + 64, np.uint8)
    start = -whole.ctypes.data % 64
    return whole[start : start + num_bytes]


def _library() -> ctypes.CDLL | None:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "ceilings.so"
        flags = ["-O3", "-march=native", "-shared", "-fPIC", str(SOURCE), "-o", str(target)]
        try:
            subprocess.run([*os.environ.get("CC", "cc").split(), *flags], check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        library = ctypes.CDLL(str(target))
    library.read_all.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.read_all.restype = ctypes.c_int64
    multiplying = (library.multiply_floats, library.multiply_bf16, library.multiply_bytes)
    for function in multiplying:
        function.argtypes = [ctypes.c_int64, ctypes.c_void_p]
        function.restype = ctypes.c_int64
    return library
