"""Processor time and wake-ups of other processes, from the kernel's own books."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

CPUCLOCK_SCHED = 2
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
