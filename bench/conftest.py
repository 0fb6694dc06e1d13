"""What benchmarks of the CPU kernels have in common."""

import os
from collections.abc import Iterator

import pytest

from bench.ceilings.measure import Ceilings, ceilings
from neurond.kernels.library import Kernels, Pool
from neurond.kernels.variants import NoKernels, load_kernels


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    found = load_kernels()
    if isinstance(found, NoKernels):
        pytest.skip(found.reason)
    return found


@pytest.fixture(scope="module")
def pool(kernels: Kernels) -> Iterator[Pool]:
    with kernels.pool(len(os.sched_getaffinity(0))) as made:
        yield made


@pytest.fixture(scope="module")
def limits() -> Ceilings:
    found = ceilings()
    if found is None:
        pytest.skip("there is no C compiler")
    return found
