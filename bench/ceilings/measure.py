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

from neurond.kernels.memory import HUGE_BYTES, Buffer

SOURCE: Final = Path(__file__).parent / "ceilings.c"
TURN_BYTES: Final = 256 << 20
"""Read in one go, again and again where there is less: so much that starting threads is little."""
ROUNDS: Final = 200_000
TURNS: Final = 64
"""Each takes about a millisecond: on a machine that does other work some run undisturbed."""
READ_TURNS: Final = 12


@dataclass(frozen=True)
class Ceilings:
    """The best of some turns, of all cores together."""

    float_gmac_per_s: float
    bf16_gmac_per_s: float
    byte_gmac_per_s: float

    def read_gb_per_s(self, num_bytes: int) -> float:
        """Return the rate of reading so many bytes over and over, from where they fit."""
        return _read_gb_per_s(num_bytes)


@cache
def ceilings() -> Ceilings | None:
    """Return what this machine reaches; None where nothing can be compiled."""
    try:
        loops = compiled()
    except OSError:
        return None
    kinds = (loops.multiply_floats, loops.multiply_bf16, loops.multiply_bytes)
    return Ceilings(*(max(_multiply(kind) for _ in range(TURNS)) for kind in kinds))


@cache
def _read_gb_per_s(num_bytes: int) -> float:
    reading = Reading(num_bytes)
    return max(reading.gb_per_s() for _ in range(READ_TURNS))


class Reading:
    """Memory in huge pages, of which each core reads its part."""

    def __init__(self, num_bytes: int) -> None:
        """Have `num_bytes`, or a little less so that the cores' parts are alike.

        Raises:
            OSError: nothing can be compiled, or there is no such memory.
        """
        threads = num_cores()
        self._loops = compiled()
        self._part_bytes = num_bytes // threads // 512 * 512
        self._parts = [Buffer(self._part_bytes + HUGE_BYTES) for _ in range(threads)]
        for part in self._parts:
            part.bytes.fill(1)  # untouched pages would all be one
        self._passes = max(1, TURN_BYTES // num_bytes)

    def gb_per_s(self) -> float:
        """Return the rate of all cores together in one turn, of the best pattern."""
        return max(map(self._read, self._patterns()))

    def mean_gb_per_s(self, seconds: float) -> float:
        """Return the mean rate over so many seconds of the pattern that is best just before."""
        best = max(self._patterns(), key=lambda pattern: self._mean(pattern, READ_TURNS))
        turns = 0
        inverse = 0.0  # each turn reads as much
        until = time.perf_counter() + seconds
        while not turns or time.perf_counter() < until:
            inverse += 1 / self._read(best)
            turns += 1
        return turns / inverse

    def _mean(self, pattern: int, turns: int) -> float:
        return turns / sum(1 / self._read(pattern) for _ in range(turns))

    def _patterns(self) -> range:
        return range(ctypes.c_int32.in_dll(self._loops, "read_patterns").value)

    def _read(self, pattern: int) -> float:
        def work(thread: int) -> int:
            start = -(-self._parts[thread].address // HUGE_BYTES) * HUGE_BYTES
            self._loops.read_all(start, self._part_bytes, self._passes, pattern)
            return self._part_bytes * self._passes

        return rate(work)


def _multiply(loop: Callable[..., int]) -> float:
    return rate(lambda _thread: loop(ROUNDS, (ctypes.c_int32 * 16)(3, 2)))


def rate(work: Callable[[int], int]) -> float:
    """Return 1e9 units per second of all threads; `work` says what one has done."""
    began = time.perf_counter()
    done = on_all_cores(work)
    return done / (time.perf_counter() - began) / 1e9


def on_all_cores(work: Callable[[int], int]) -> int:
    """Call `work` with 0, 1 and so on, each in a thread, one for each core; return the sum."""
    return sum(_threads().map(work, range(num_cores())))


def num_cores() -> int:
    """Return how many cores we may use."""
    return len(os.sched_getaffinity(0))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_cores())


@cache
def compiled() -> ctypes.CDLL:
    """Return the loops.

    Raises:
        OSError: there is no C compiler, or none for them.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "ceilings.so"
        command = [*os.environ.get("CC", "cc").split(), "-O3", "-march=native", "-shared", "-fPIC"]
        try:
            subprocess.run([*command, str(SOURCE), "-o", str(target)], check=True)
        except (OSError, subprocess.CalledProcessError) as ex:
            raise OSError(
                f"cannot compile {SOURCE}: {ex}; install a C compiler, or name one in $CC"
            ) from ex
        library = ctypes.CDLL(str(target))
    library.read_all.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, ctypes.c_int32]
    library.read_all.restype = ctypes.c_uint64
    multiplying = (library.multiply_floats, library.multiply_bf16, library.multiply_bytes)
    for function in multiplying:
        function.argtypes = [ctypes.c_int64, ctypes.c_void_p]
        function.restype = ctypes.c_int64
    return library
