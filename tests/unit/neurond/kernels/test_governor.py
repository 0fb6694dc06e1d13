"""How many threads of a pool are used, by how long each waited for its core."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from neurond.kernels.csrc import build

SOURCE = """
#include "pool_governor.h"
extern "C" cortex::Governor *governor(int threads) { return new cortex::Governor(threads); }
extern "C" void forget(cortex::Governor *governor) { delete governor; }
extern "C" int window(cortex::Governor *governor, std::uint64_t now_ns, std::uint64_t busy_ns,
                      const std::uint64_t *delays_ns) {
    return governor->after_phase(now_ns, busy_ns, [&](int worker) { return delays_ns[worker]; });
}
"""
WINDOW_MS = 40
PAUSE_MS = 50
"""The first time that a thread is given up for."""
HALF = WINDOW_MS / 2
"""What a worker waits beside a busy process on its core."""
MANY = [2, 4, 16, 64]
Delays = Sequence[float]


class Governor:
    """One that is told windows of delays, one after another, at the end of each."""

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        self._library = library
        self._threads = threads
        self._governor = ctypes.c_void_p(library.governor(threads))
        self._now_ms = 0

    def after(self, delays_ms: Delays, num_windows: int = 1) -> int:
        """Return how many threads are used after windows in which workers waited so long."""
        assert len(delays_ms) == self._threads
        delays = (ctypes.c_uint64 * self._threads)(*(int(1e6 * delay) for delay in delays_ms))
        usable = 0
        for _ in range(num_windows):
            self._now_ms += WINDOW_MS
            now_ns, busy_ns = 1_000_000 * self._now_ms, 1_000_000 * WINDOW_MS
            usable = self._library.window(
                self._governor, ctypes.c_uint64(now_ns), ctypes.c_uint64(busy_ns), delays
            )
        return usable

    def close(self) -> None:
        self._library.forget(self._governor)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("governor") / "governor.so"
    command = [*os.environ.get("CXX", "c++").split(), "-std=c++17", "-shared", "-fPIC"]
    command += ["-I", str(Path(build.__file__).parent), "-x", "c++", "-", "-o", str(path)]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    found = ctypes.CDLL(str(path))
    found.governor.restype = ctypes.c_void_p
    return found


@pytest.fixture
def new(library: ctypes.CDLL) -> Iterator[Callable[[int], Governor]]:
    with contextlib.ExitStack() as made:

        def make(threads: int) -> Governor:
            return made.enter_context(contextlib.closing(Governor(library, threads)))

        yield make


def one_of(threads: int, delay_ms: float, others_ms: float = 0.0) -> list[float]:
    return [delay_ms, *[others_ms] * (threads - 1)]


@pytest.mark.parametrize("threads", MANY)
@pytest.mark.parametrize("each_ms", [0, 0.05, 0.2, 1.9, 5.5])
def test_waking_is_no_load_however_many_are_woken(new, threads, each_ms):
    uneven = [each_ms * (0.7 + 0.6 * (worker % 2)) for worker in range(threads)]
    assert new(threads).after(uneven, 100) == threads


@pytest.mark.parametrize("threads", MANY)
@pytest.mark.parametrize("woken_ms", [0, 0.2, 1.9])
@pytest.mark.parametrize("held_up_ms", [HALF, WINDOW_MS])
def test_a_busy_core_costs_one_thread(new, threads, woken_ms, held_up_ms):
    governor = new(threads)
    assert governor.after(one_of(threads, held_up_ms, woken_ms)) == threads - 1
    # The kernel puts the others where they are alone.
    assert governor.after([woken_ms] * threads) == threads - 1
    assert governor.after([woken_ms] * threads, 20) == threads, "it never tried again"


@pytest.mark.parametrize("threads", [16, 64])
def test_a_busy_process_that_moves_about_costs_one_too(new, threads):
    told = [3.5 if worker < 6 else 0.2 for worker in range(threads)]  # a turn on each of six cores
    assert new(threads).after(told) == threads - 1


def test_a_little_load_on_one_core_is_seen_by_many_and_borne_by_few(new):
    assert new(64).after(one_of(64, 6, 0.2)) == 63
    assert new(2).after(one_of(2, 6, 0.2), 100) == 2


@pytest.mark.parametrize("threads", MANY)
def test_where_all_cores_are_busy_about_half_are_left(new, threads):
    governor = new(threads)
    assert governor.after([HALF] * threads) == threads // 2
    assert governor.after([HALF] * threads) >= 1


def test_pauses_grow_while_the_neighbour_stays_and_shrink_when_he_is_gone(new):
    governor = new(2)

    def windows_with_one() -> int:
        assert governor.after(one_of(2, HALF)) == 1
        count = 1
        while governor.after([0, 0]) == 1:
            count += 1
        return count

    pauses = [windows_with_one() for _ in range(7)]
    assert pauses == sorted(pauses)
    assert pauses[0] * WINDOW_MS <= PAUSE_MS + WINDOW_MS
    assert pauses[-1] * WINDOW_MS == 800
    assert governor.after([0, 0]) == 2  # a quiet window
    assert windows_with_one() == pauses[0]
