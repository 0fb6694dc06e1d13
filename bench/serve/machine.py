"""What the machine's CPUs did during a measurement, and for whom; what memory a server holds.

A run in which other processes took more than 0.15 core is not clean and is reported as such.
"""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import psutil

FOREIGN_CORES_LIMIT = 0.15

REST_CORES: Final = 0.1
"""What a server at rest takes at most, over `REST_WINDOW_S`."""
REST_WINDOW_S: Final = 0.5
REST_LIMIT_S: Final = 10.0


@dataclass(frozen=True)
class CpuUse:
    """Cores used on average: by the server's process trees, by this client, by anything else."""

    server_cores: float
    client_cores: float
    foreign_cores: float
    server_cpu_s: float

    @property
    def is_clean(self) -> bool:
        """Whether the figures of this window count."""
        return self.foreign_cores <= FOREIGN_CORES_LIMIT


@dataclass(frozen=True)
class ResidentMemory:
    """MiB of a server's process trees; in the second, a page that n processes share counts 1/n."""

    rss_mib: float
    pss_mib: float


class CpuMeter:
    """Measures from construction to `stop()`. `pids` are the roots of the server's trees."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._machine = _machine_busy_s()
        self._server = _trees_busy_s(pids)
        self._client = _client_busy_s()
        self._started = time.perf_counter()

    def stop(self) -> CpuUse:
        """Return the use since construction."""
        elapsed = time.perf_counter() - self._started
        machine = _machine_busy_s() - self._machine
        server = _trees_busy_s(self._pids) - self._server
        client = _client_busy_s() - self._client
        return CpuUse(
            server_cores=server / elapsed,
            client_cores=client / elapsed,
            foreign_cores=max(0.0, (machine - server - client) / elapsed),
            server_cpu_s=server,
        )


async def at_rest(pids: Sequence[int]) -> None:
    """Return when a server does nothing any more of what it does behind its requests.

    That is another's part of a measurement, or none. Some never rest: none gets longer than
    `REST_LIMIT_S`.
    """
    for _ in range(round(REST_LIMIT_S / REST_WINDOW_S)):
        meter = CpuMeter(pids)
        await asyncio.sleep(REST_WINDOW_S)
        if meter.stop().server_cores < REST_CORES:
            return


def resident_memory(pids: Sequence[int]) -> ResidentMemory:
    """Return what the trees of `pids` hold now; the kernel takes some ms to add that up."""
    rss = pss = 0
    for process in _trees(pids):
        try:
            memory = process.memory_full_info()
        except psutil.Error:
            continue
        rss += memory.rss
        pss += memory.pss
    return ResidentMemory(rss / 2**20, pss / 2**20)


def _machine_busy_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def _client_busy_s() -> float:
    """Return what this process and its children took that have ended."""
    return sum(os.times()[:4])


def _trees_busy_s(pids: Sequence[int]) -> float:
    seconds = 0.0
    for process in _trees(pids):
        try:
            used = process.cpu_times()
        except psutil.Error:
            continue
        seconds += used.user + used.system
    return seconds


def _trees(pids: Sequence[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        try:
            root = psutil.Process(pid)
            yield from (root, *root.children(recursive=True))
        except psutil.Error:
            continue
