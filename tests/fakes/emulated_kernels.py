"""AVX-512 and AMX kernels on processors without them: the same sources, emulated instructions."""

import os
import subprocess
from pathlib import Path

import pytest

from neurond.kernels.csrc import build
from neurond.kernels.library import Kernels, VariantName
from neurond.kernels.variants import VARIANTS, cpu_flags, load_library

HERE = Path(__file__).parent
SIMDE = "simde/x86/avx512/dpbf16.h"
# Less optimised: the emulation is large, and is slow anyhow. GCC 12 fails on it in one pass (SRA).
FLAGS = (
    "-O1",
    "-fno-tree-sra",
    "-Wno-psabi",
    *build.FLAGS[1:],
    *build.VARIANTS["avx2"],
    f'-DCORTEX_INTRINSICS="{HERE}/emulated_avx512.h"',
)
TILES = f'-DCORTEX_TILES="{HERE}/emulated_tiles.h"'
EMULATED: dict[VariantName, tuple[str, ...]] = {"amx": (*FLAGS, TILES), "avx512": FLAGS}
"""By variant, what the compiler is told."""


def emulated_kernels(variant: VariantName, folder: Path) -> Kernels:
    """Compile a variant into `folder` and load it, or skip where that cannot be or need not."""
    if VARIANTS[variant] <= cpu_flags():
        pytest.skip(f"this processor runs {variant} itself")
    if missing := VARIANTS["avx2"] - cpu_flags():
        pytest.skip(f"the emulation needs {', '.join(sorted(missing))}")
    compiler = os.environ.get("CXX", "c++").split()
    probe = f"#if !__has_include(<{SIMDE}>)\n#error\n#endif\n"
    found = subprocess.run(
        [*compiler, "-E", "-x", "c++", "-"],
        input=probe,
        text=True,
        capture_output=True,
        check=False,
    )
    if found.returncode:
        pytest.skip(f"there is no {SIMDE} (Debian: apt-get install libsimde-dev)")
    path = folder / f"cortex_{variant}.so"
    build.compile_library(path, EMULATED[variant])
    kernels = load_library(variant, path)
    assert isinstance(kernels, Kernels), kernels.reason
    return kernels
