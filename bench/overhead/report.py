"""Tables of what was measured, in microseconds of processor time for each token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.markdown import table
from bench.overhead.processes import ACTOR, FLEET, MASTER, PARENT, ROLES, SUPERVISOR, WORKERS, Usage

MICRO = 1e-3


@dataclass(frozen=True)
class Window:
    """What the processes took while so many tokens were made."""

    entry: str
    streams: int
    tokens: int
    wall_s: float
    step_ns: int
    """Processor time of the bare steps, on all threads."""
    sampling_ns: int
    """Of choosing tokens."""
    usage: Usage

    @property
    def total_ns(self) -> int:
        return sum(spent.cpu_ns for spent in self.usage.values())

    @property
    def above_ns(self) -> int:
        """What is not the steps."""
        return self.total_ns - self.step_ns

    @property
    def ns_per_token(self) -> float:
        return self.total_ns / self.tokens

    def micros(self, *roles: str) -> float:
        """Return what processes took for a token, steps and choice of tokens left out."""
        spent_ns = sum(self.usage[role].cpu_ns for role in roles)
        in_kernels_ns = (self.step_ns + self.sampling_ns) * (ACTOR in roles)
        return MICRO * (spent_ns - in_kernels_ns) / self.tokens


def middle(windows: Sequence[Window]) -> Window:
    """Return the median by what a token took; of two in the middle the cheaper one."""
    return sorted(windows, key=lambda window: window.ns_per_token)[(len(windows) - 1) // 2]


def tokens_table(windows: Sequence[Window], alone: Mapping[int, float]) -> str:
    """Return a row for each window. `alone` has by streams what a token takes in the step alone."""
    headers = [
        *("asked, streams", "tokens/s", "step alone", "step here", "sampling", "actor besides"),
        *("supervisor", "HTTP workers", "others", "all above the step", "of the step"),
    ]
    rows = []
    for window in windows:
        base_ns = alone.get(window.streams)
        rows.append(
            [
                f"{window.entry}, {window.streams}",
                f"{window.tokens / window.wall_s:,.0f}",
                "" if base_ns is None else f"{MICRO * base_ns:,.0f}",
                f"{MICRO * window.step_ns / window.tokens:,.0f}",
                f"{MICRO * window.sampling_ns / window.tokens:,.0f}",
                f"{window.micros(ACTOR):,.0f}",
                f"{window.micros(SUPERVISOR):,.0f}",
                f"{window.micros(WORKERS):,.0f}",
                f"{window.micros(*set(ROLES) - {ACTOR, SUPERVISOR, WORKERS}):,.0f}",
                f"{MICRO * window.above_ns / window.tokens:,.0f}",
                "" if base_ns is None else f"{window.above_ns / window.step_ns:.1%}",
            ]
        )
    return table(headers, rows)


def quiet_table(usage: Usage, seconds: float) -> str:
    """Return a row for each kind of process that has something to do while nobody asks."""
    shown = (ACTOR, SUPERVISOR, WORKERS, FLEET, MASTER, PARENT)
    rows = [
        [
            role,
            f"{usage[role].sleeps / seconds:,.1f}",
            f"{usage[role].cpu_ns / 1e6 / seconds:.2f}",
        ]
        for role in shown
    ]
    return table(["process", "wake-ups/s", "ms/s"], rows)
