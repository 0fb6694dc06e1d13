"""What the machine's CPUs did during a measurement, and for whom.

A run in which other processes took more than 0.15 core is not clean and is reported as such.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

FOREIGN_CORES_LIMIT = 0.15


@dataclass(frozen=True)
class CpuUse:
    """Cores used on average: by the server's process trees, by this client, by anything else."""

    server_cores: float
    client_cores: float
    foreign_cores: float
    server_cpu_s: float
    server_rss_mib: float

    @property
    def is_clean(self) -> bool:
        """Whether the figures of this window count."""
        return self.foreign_cores <= FOREIGN_CORES_LIMIT


class CpuMeter:
    """Measures from construction to `stop()`. `pids` are the roots of the server's trees."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._machine = _machine_busy_s()
        self._server, _ = _trees(pids)
        self._client = time.process_time()
        self._started = time.perf_counter()

    def stop(self) -> CpuUse:
        """Return the use since construction."""
        elapsed = time.perf_counter() - self._started
        machine = _machine_busy_s() - self._machine
        server_now, rss = _trees(self._pids)
        server = server_now - self._server
        client = time.process_time() - self._client
        return CpuUse(
            server_cores=server / elapsed,
            client_cores=client / elapsed,
            foreign_cores=max(0.0, (machine - server - client) / elapsed),
            server_cpu_s=server,
            server_rss_mib=rss / 2**20,
        )


def _machine_busy_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def _trees(pids: Sequence[int]) -> tuple[float, int]:
    seconds, rss_bytes = 0.0, 0
    for pid in pids:
        try:
            root = psutil.Process(pid)
            processes = [root, *root.children(recursive=True)]
        except psutil.Error:
            continue
        for process in processes:
            try:
                used = process.cpu_times()
                seconds += used.user + used.system
                rss_bytes += process.memory_info().rss
            except psutil.Error:
                continue
    return seconds, rss_bytes
