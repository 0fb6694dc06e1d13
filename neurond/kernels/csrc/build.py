"""Compiles the CPU kernels: each variant a shared library without Python's headers or torch's.

    python build.py FOLDER     # all that processors of this machine's kind may need

This needs a C++ compiler and Python alone: setup.py and the node's package share it.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

CSRC: Final = Path(__file__).parent
FLAGS: Final = (
    *("-O3", "-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fvisibility-inlines-hidden"),
    *("-fPIC", "-pthread"),
)
_AVX2: Final = ("-mavx2", "-mfma", "-mf16c")
_AVX512: Final = (
    *_AVX2,
    *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mavx512bf16"),
)
VARIANTS: Final = {
    "amx": (*_AVX512, "-mamx-tile", "-mamx-bf16"),
    "avx512": _AVX512,
    "avx2": _AVX2,
    "portable": (),
}
"""By name, what the compiler is told besides; `neurond/kernels/variants.py` chooses among them."""
EXPORTS: Final = "{ global: cortex_*; local: *; };\n"
"""Two variants in one process must not find each other's functions."""


def variant_names() -> list[str]:
    """Return the variants for the processors of this machine's kind."""
    return list(VARIANTS) if platform.machine() in {"x86_64", "AMD64"} else ["portable"]


def sources() -> list[Path]:
    """Return what is compiled, and what that includes."""
    return sorted(path for path in CSRC.iterdir() if path.suffix in {".cpp", ".h"})


def compile_library(target: Path, flags: Sequence[str]) -> None:
    """Compile all sources, side by side, into one library at `target`.

    Raises:
        OSError: there is no compiler.
        CalledProcessError: it refuses.
    """
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(os.cpu_count()) as workers:
        folder = Path(name)

        def compile_one(source: Path) -> str:
            made = str(folder / f"{source.stem}.o")
            subprocess.run([*_compiler(), *flags, "-c", str(source), "-o", made], check=True)
            return made

        files = list(workers.map(compile_one, (p for p in sources() if p.suffix == ".cpp")))
        exports = folder / "exports"
        exports.write_text(EXPORTS)
        link = ["-shared", f"-Wl,--version-script={exports}", *files, "-o", str(target)]
        subprocess.run([*_compiler(), *flags, *link], check=True)


def compile_once(target: Path, flags: Sequence[str], kept: Path) -> None:
    """As `compile_library`; take what is in the folder `kept` where nothing has changed since.

    Of each library's name the last one is kept. Where it raises, there is no `target`: one of other
    sources would be taken for what could not be compiled.
    """
    target.unlink(missing_ok=True)  # who has it mapped keeps the old one
    built = kept / f"{target.stem}-{_fingerprint(flags)}{target.suffix}"
    if not built.exists():
        kept.mkdir(parents=True, exist_ok=True)
        for old in kept.glob(f"{target.stem}-*{target.suffix}"):
            old.unlink(missing_ok=True)
        partial = built.with_suffix(".partial")
        compile_library(partial, flags)
        partial.replace(built)
    shutil.copy(built, target)


def _compiler() -> list[str]:
    return os.environ.get("CXX", "c++").split()


def _fingerprint(flags: Sequence[str]) -> str:
    """Name the compiler, what it is told, and all that it reads."""
    version = subprocess.run([*_compiler(), "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(version + "\0".join([*_compiler(), *flags]).encode())
    for path in sources():
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def main() -> None:
    """Compile every variant; leave out what compiler or assembler do not know, but `portable`."""
    folder = Path(sys.argv[1])
    for name in variant_names():
        target = folder / f"cortex_{name}.so"
        target.unlink(missing_ok=True)
        try:
            compile_library(target, (*FLAGS, *VARIANTS[name]))
        except subprocess.CalledProcessError as ex:
            if name == "portable":
                raise
            sys.stderr.write(f"{target.name} is left out: {ex}\n")


if __name__ == "__main__":
    main()
