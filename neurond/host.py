"""What this process may use of its host: memory and processors, within its control groups.

`psutil` and /proc tell of the machine; a container or a systemd unit may have less. Both versions
of Linux control groups are read; a file that is absent or says "max" is no limit.
"""

import math
import os
from pathlib import Path

import msgspec
import psutil

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_PROC_CGROUP = Path("/proc/self/cgroup")


class HostMemory(msgspec.Struct, frozen=True):
    """Bytes of memory that this process's control group and the machine leave it."""

    total_bytes: int
    free_bytes: int
    """What can be taken without swapping; page cache counts as free."""


def host_memory(
    root: Path = _CGROUP_ROOT, membership: Path = _PROC_CGROUP, *, borrowed_bytes: int = 0
) -> HostMemory:
    """Return the memory of this host, or of the tightest control group around this process.

    Of page cache, `borrowed_bytes` are needed and not free.
    """
    machine = psutil.virtual_memory()
    total, free = int(machine.total), max(0, int(machine.available) - borrowed_bytes)
    for limit, used in _memory_limits(root, membership, borrowed_bytes):
        total = min(total, limit)
        free = min(free, max(0, limit - used))
    return HostMemory(total, free)


def process_memory(budget_bytes: int | None, borrowed_bytes: int) -> HostMemory:
    """Return host memory, within a budget that this process has for itself if there is one.

    `borrowed_bytes` are those of files that this process needs in memory; its own size has them.
    """
    host = host_memory(borrowed_bytes=borrowed_bytes)
    if budget_bytes is None:
        return host
    total = min(host.total_bytes, budget_bytes)
    unused = max(0, total - psutil.Process().memory_info().rss)
    return HostMemory(total, min(unused, host.free_bytes))


def host_threads(root: Path = _CGROUP_ROOT, membership: Path = _PROC_CGROUP) -> int:
    """Return how many threads can compute at the same time, at least 1."""
    threads = len(os.sched_getaffinity(0))
    for folder in _groups(root, membership, controller=""):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            threads = min(threads, math.ceil(int(quota) / int(period)))
    return max(1, threads)


def _memory_limits(root: Path, membership: Path, borrowed_bytes: int) -> list[tuple[int, int]]:
    def cache_bytes(folder: Path, key: str) -> int:
        return max(0, _cache_bytes(folder, key) - borrowed_bytes)

    limits = []
    for folder in _groups(root, membership, controller=""):
        limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
        if limit is not None and used is not None:
            limits.append((limit, used - cache_bytes(folder, "inactive_file")))
    for folder in _groups(root / "memory", membership, controller="memory"):
        limit = _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            limits.append((limit, used - cache_bytes(folder, "total_inactive_file")))
    return limits


def _groups(root: Path, membership: Path, *, controller: str) -> list[Path]:
    """Return the folder of this process's group and those above it, in one hierarchy."""
    for line in _text(membership).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controller in controllers.split(","):
            inner = root / path.lstrip("/")
            above = [folder for folder in inner.parents if folder.is_relative_to(root)]
            return [inner, *above]
    return []


def _cache_bytes(folder: Path, key: str) -> int:
    for line in _text(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
