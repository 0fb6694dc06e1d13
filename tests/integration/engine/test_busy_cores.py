"""The kernels' threads beside processes that keep all of their cores busy.

What a pool decides is seen in what the system counts for its threads: one that is not used does not
run at all while the others work.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from neurond.kernels import abi
from neurond.kernels.library import Kernels
from neurond.kernels.memory import Buffer
from neurond.kernels.variants import NoKernels, load_kernels
from tests.fakes.waiting import wait_until

SPIN = "import os\nwhile os.getppid() == {parent}: sum(range(100000))"
WITHOUT_S = 0.04
"""Of the caller's processor time: a thread that is used runs in it, however busy its core is."""


@pytest.fixture
def two_cores() -> Iterator[None]:
    """All that the test starts shares two cores."""
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("there is one core")
    os.sched_setaffinity(0, sorted(before)[:2])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def spinning(count: int) -> Iterator[None]:
    with contextlib.ExitStack() as running:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", SPIN.format(parent=os.getpid())])
            running.callback(process.wait)
            running.callback(process.kill)
        yield


@contextlib.contextmanager
def multiplying(kernels: Kernels) -> Iterator[tuple[Callable[[], object], Path]]:
    """A product by a pool of two threads, and what the system counts for the second."""
    weights = np.ones((2048, 1024), np.float32)
    buffer = Buffer(kernels.packed_bytes("int8", *weights.shape))
    linear = abi.Linear(abi.FORMATS["int8"], *weights.shape, 0, buffer.address, None)
    kernels.pack_rows(linear, 0, weights)
    x = np.ones((16, 1024), np.float32)
    before = threads()
    with kernels.pool(2) as pool:
        (second,) = threads() - before
        yield lambda: kernels.linear_apply(pool, linear, x), second / "schedstat"


def threads() -> set[Path]:
    return set(Path("/proc/self/task").iterdir())


def works_alone(multiply: Callable[[], object], second: Path) -> bool:
    """Whether the second thread rests from now on, until the caller has worked for a while."""
    told, began_s = second.read_text(), time.thread_time()
    while time.thread_time() < began_s + WITHOUT_S:
        multiply()
        if second.read_text() != told:
            return False
    return True


def test_a_pool_gives_up_a_thread_while_its_cores_are_busy_and_takes_it_back(two_cores):
    kernels = load_kernels()
    if isinstance(kernels, NoKernels):
        pytest.skip(kernels.reason)
    if not Path("/proc/thread-self/schedstat").exists():
        pytest.skip("the system does not count how long threads wait")
    with multiplying(kernels) as (multiply, second):
        with spinning(2):
            wait_until(lambda: works_alone(multiply, second))
        told = second.read_text()
        wait_until(lambda: multiply() is not None and second.read_text() != told)
