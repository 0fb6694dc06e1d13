"""What figures are of, as their tables say it."""

import os
import platform
from pathlib import Path

import psutil


def hardware() -> str:
    """Return the cores that we may use, the processor, its memory and the system."""
    memory_gib = psutil.virtual_memory().total / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {_processor()}, {memory_gib:.0f} GiB, {_system()}"


def _system() -> str:
    """Return the versions of the kernel, without what a distributor adds, and of the C library."""
    release, _, _ = platform.release().partition("-")
    return f"{platform.system()} {release}, {' '.join(platform.libc_ver())}"


def _processor() -> str:
    """Return the processor as the kernel names it, with what decides which kernels run."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = set(fields.get("flags", "").split())
    known = ("amx_bf16", "avx512_vnni", "avx512f", "avx2")
    widest = next((flag for flag in known if flag in flags), "no AVX2")
    return f"{fields.get('model name', platform.machine())} ({widest})"
