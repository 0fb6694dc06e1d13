"""The Triton kernels: what they mean, by Triton's interpreter, and that they compile for GPUs.

The interpreter has no bfloat16. Both need Triton, which torch has where it is built with CUDA.
"""

import pytest

from tests.fakes.triton_processes import run_module

BOUNDS = {
    # float16
    "plain": 2e-3,
    "window": 2e-3,
    "window of one": 2e-3,
    "window of blocks": 2e-3,
    "softcap": 2e-3,
    "all": 2e-3,
    # float32
    "groups of one": 1e-4,
    "odd": 1e-4,
    "wide groups": 1e-4,
    "large": 1e-4,
    "mixed": 1e-4,
    "beside an image": 1e-4,
    "beside a prompt": 0,
}


SHARED_BYTES = {"75": 64 << 10, "80": 163 << 10, "86": 99 << 10, "90": 227 << 10, "120": 99 << 10}
"""What a program may have on devices of each compute capability."""


@pytest.fixture(scope="module")
def told() -> dict:
    return run_module("tests.fakes.interpreted_decodes", TRITON_INTERPRET="1")


@pytest.mark.parametrize("name", BOUNDS)
def test_decodes_keep_the_contract(name, told):
    assert told["errors"].keys() == BOUNDS.keys()
    assert told["errors"][name] <= BOUNDS[name]


def test_a_trial_finds_them_right(told):
    assert told["reason"] is None


def test_they_compile_for_each_kind_of_gpu_and_fit(tmp_path):
    found = run_module("tests.fakes.compiled_kernels", TRITON_CACHE_DIR=str(tmp_path))
    assert found.keys() == SHARED_BYTES.keys()
    for capability, sizes in found.items():
        assert all(0 < size <= SHARED_BYTES[capability] for size in sizes), (capability, sizes)
