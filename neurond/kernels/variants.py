"""Which of the built libraries this processor can run, and the best of them, loaded."""

import ctypes
import logging
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from cortex_core.logs import kv
from neurond.kernels import abi, sample_abi
from neurond.kernels.attention_check import wrong_attention
from neurond.kernels.gate_check import wrong_gate
from neurond.kernels.library import Kernels, VariantName
from neurond.kernels.self_check import wrong_product

log = logging.getLogger(__name__)

_AVX2: Final = frozenset({"avx2", "fma", "f16c"})
_AVX512: Final = _AVX2 | {
    *("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16")
}
VARIANTS: Final[dict[VariantName, frozenset[str]]] = {
    "amx": _AVX512 | {"amx_tile", "amx_bf16"},
    "avx512": _AVX512,
    "avx2": _AVX2,
    "portable": frozenset(),
}
"""Best first, with the flags of /proc/cpuinfo that each needs; `csrc/build.py` compiles them."""
CPUINFO: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class NoKernels:
    """Why there are none, for whoever asks for them; the CPU computes with torch then."""

    reason: str


def load_kernels(variant: VariantName | None = None) -> Kernels | NoKernels:
    """Load the best library that is built and right on this processor, or say why there is none.

    Args:
        variant: this one or none, for tests.
    """
    flags = cpu_flags()
    reasons = []
    for name, needed in VARIANTS.items():
        if variant is not None and name != variant:
            continue
        if missing := needed - flags:
            reasons.append(f"{name}: this processor lacks {', '.join(sorted(missing))}")
            continue
        found = load_library(name, Path(__file__).parent / f"cortex_{name}.so")
        if isinstance(found, Kernels):
            return found
        reasons.append(f"{name}: {found.reason}")
    return NoKernels("; ".join(reasons))


@cache
def cpu_flags() -> frozenset[str]:
    """Return what the first processor can do, as Linux names it."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError as ex:
        log.warning("processor flags not read", extra=kv(path=CPUINFO, cause=ex))
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


@cache
def load_library(variant: VariantName, path: Path) -> Kernels | NoKernels:
    """Load and check one library, once in a process."""
    if not path.exists():
        return NoKernels("it is not built; install g++ and install cortex-fleet again")
    try:
        library = ctypes.CDLL(str(path))
        abi.declare(library)
        abi.declare(library, sample_abi.FUNCTIONS)
    except (OSError, AttributeError) as ex:
        return NoKernels(f"it cannot be loaded: {ex}; install cortex-fleet again")
    built = library.cortex_abi()
    if built != abi.ABI:
        return NoKernels(
            f"it was built with interface {built} instead of {abi.ABI}; install cortex-fleet again"
        )
    if error := library.cortex_ask_permission():
        cause = os.strerror(error)
        log.warning("CPU kernels not permitted", extra=kv(variant=variant, cause=cause))
        return NoKernels(f"the system does not let this process use its instructions: {cause}")
    kernels = Kernels(variant, path, library)
    if wrong := wrong_product(kernels) or wrong_attention(kernels) or wrong_gate(kernels):
        log.warning("CPU kernels not trusted", extra=kv(variant=variant, path=path, cause=wrong))
        return NoKernels(wrong)
    return kernels
