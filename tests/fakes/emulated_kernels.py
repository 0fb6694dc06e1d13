"""The AVX-512 kernels on processors without it: the same sources over emulated instructions."""

import os
import subprocess
from pathlib import Path

import pytest

from neurond.kernels.csrc import build
from neurond.kernels.library import Kernels
from neurond.kernels.variants import VARIANTS, cpu_flags, load_library

HEADER = Path(__file__).parent / "emulated_avx512.h"
SIMDE = "simde/x86/avx512/dpbf16.h"
# Less optimised: the emulation is large, and is slow anyhow. GCC 12 fails on it in one pass (SRA).
FLAGS = (
    "-O1",
    "-fno-tree-sra",
    "-Wno-psabi",
    *build.FLAGS[1:],
    *build.VARIANTS["avx2"],
    f'-DCORTEX_INTRINSICS="{HEADER}"',
)


def emulated_avx512(folder: Path) -> Kernels:
    """Compile them into `folder` and load them, or skip where that cannot be."""
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
    path = folder / "cortex_avx512.so"
    build.compile_library(path, FLAGS)
    kernels = load_library("avx512", path)
    assert isinstance(kernels, Kernels), kernels.reason
    return kernels
