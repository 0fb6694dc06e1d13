"""Processor time and wake-ups of processes and threads, from the kernel's own books."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

CPUCLOCK_SCHED = 2
CPUCLOCK_PERTHREAD = 4
VOLUNTARY = "voluntary_ctxt_switches:"


@dataclass(frozen=True, slots=True)
class Spent:
    """What processes have taken: nanoseconds on a core, and times they went to sleep."""

    cpu_ns: int = 0
    sleeps: int = 0

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return what a process has taken so far, all of its threads together.

        Raises:
            OSError: there is no such process any more.
        """
        return cls(time.clock_gettime_ns(_cpu_clock(pid)), _sleeps(pid))

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.cpu_ns + other.cpu_ns, self.sleeps + other.sleeps)

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.cpu_ns - other.cpu_ns, self.sleeps - other.sleeps)


class ThreadClock:
    """Processor time of the calling thread and of those that were named, while they live.

    The clock of a process would do for seconds only: it learns of what a thread does on another
    core with the kernel's next tick, some milliseconds later, or when that thread goes to sleep.
    """

    def __init__(self) -> None:
        self._clocks: list[int] = []

    def watch(self, threads: Iterable[int]) -> None:
        """Count threads of this process, by their ids, as well."""
        self._clocks += [_cpu_clock(thread) | CPUCLOCK_PERTHREAD for thread in threads]

    def read_ns(self) -> int:
        """Return what they have taken so far."""
        return time.thread_time_ns() + sum(map(time.clock_gettime_ns, self._clocks))


def own_threads() -> set[int]:
    """Return the ids of this process's threads."""
    return {int(path.name) for path in Path("/proc/self/task").iterdir()}


def _cpu_clock(pid: int) -> int:
    """Return what clock_getcpuclockid(3) does; unlike /proc's ticks it counts nanoseconds."""
    return (~pid << 3) | CPUCLOCK_SCHED


def _sleeps(pid: int) -> int:
    """Count for threads that are still there."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        total += int(text.partition(f"\n{VOLUNTARY}")[2].split(None, 1)[0])
    return total
