"""The emulation of tile registers, which tests use elsewhere, against a processor that has them."""

import ctypes
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from neurond.kernels.csrc import build
from neurond.kernels.variants import VARIANTS, cpu_flags
from tests.fakes.emulated_kernels import TILES

CSRC = Path(build.__file__).parent
SOURCE = """
#include "permission.cpp"
#include "tiles.h"
using namespace cortex;
namespace {
template <class F>
void product(int rows, int bytes, const void *a, const void *b, void *c, F multiply) {
    TileShapes shapes;
    const Tiles tiles(shapes.set(0, rows).set(1, rows, bytes).set(2, bytes / 4));
    load_tile<0>(c, 64);
    load_tile<1>(a, 64);
    load_tile<2>(b, 64);
    multiply();
    store_tile<0>(c, 64);
}
}
extern "C" void product_bf16(int rows, int bytes, const void *a, const void *b, void *c) {
    product(rows, bytes, a, b, c, [] { multiply_bf16<0, 1, 2>(); });
}
"""
SPECIAL = np.array(
    [0, 0x8000, 1, 0x8001, 0x7F, 0x80, 0x3F80, 0xBF80, 0x7F7F, 0x7F80, 0xFF80, 0x7FC0], np.uint16
)
"""Of bfloat16: zeros, numbers around the least normal one, ones, large ones, what is not finite."""


def compiled(folder: Path, name: str, flags: tuple[str, ...]) -> ctypes.CDLL:
    path = folder / f"{name}.so"
    command = [*os.environ.get("CXX", "c++").split(), "-O1", "-std=c++17", "-shared", "-fPIC"]
    command += [*flags, "-I", str(CSRC), "-x", "c++", "-", "-o", str(path)]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    return ctypes.CDLL(str(path))


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """The same products by the processor and by the emulation."""
    if missing := VARIANTS["amx"] - cpu_flags():
        pytest.skip(f"this processor lacks {', '.join(sorted(missing))}")
    folder = tmp_path_factory.mktemp("tiles")
    real = compiled(folder, "real", build.VARIANTS["amx"])
    if error := real.cortex_ask_permission():
        pytest.skip(f"the system does not let this process use tiles: {os.strerror(error)}")
    return real, compiled(folder, "emulated", (*build.VARIANTS["amx"], TILES))


def results(both, name: str, rows: int, row_bytes: int, *operands: np.ndarray) -> list[np.ndarray]:
    found = []
    for library in both:
        a, b, c = (np.array(operand) for operand in operands)
        places = (ctypes.c_void_p(each.ctypes.data) for each in (a, b, c))
        getattr(library, name)(int(rows), int(row_bytes), *places)
        found.append(c)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_bf16_products_are_the_processors_to_the_bit(both, seed):
    rng = np.random.default_rng(seed)
    rows, pairs = rng.integers(1, 17), rng.integers(1, 17)
    halves = (rng.standard_normal((2, 16, 32)) * 10.0 ** rng.integers(-20, 18, (2, 16, 32))).astype(
        np.float32
    )
    a, b = (halves.view(np.uint32) >> 16).astype(np.uint16)
    if seed % 2:
        for operand in (a, b):
            at = rng.random(operand.shape) < 0.05
            operand[at] = rng.choice(SPECIAL, at.sum())
    c = rng.standard_normal((16, 16)).astype(np.float32)
    real, emulated = results(both, "product_bf16", rows, 4 * pairs, a, b, c)
    assert (np.isnan(real) == np.isnan(emulated)).all()
    finite = ~np.isnan(real)
    assert (real[finite].view(np.uint32) == emulated[finite].view(np.uint32)).all()
    assert (real[rows:] == c[rows:]).all()
