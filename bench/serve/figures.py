"""What a workload found, and how many values become one figure with its spread."""

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

from bench.serve.stream import StreamResult

Figures = dict[str, Any]
"""By name, with the unit in it; `NAME_all` has the values that NAME is the median of."""


def told(name: str, values: Sequence[float]) -> Figures:
    """Return the median of `values` as `name`, and all of them beside it."""
    return {name: median(values), f"{name}_all": [round(value, 3) for value in values]}


def good(results: Sequence[StreamResult]) -> list[StreamResult]:
    """Return those that had no error."""
    return [r for r in results if r.error is None]


def median(values: Sequence[float]) -> float:
    """Return the median, 0 of nothing."""
    return statistics.median(values) if values else 0.0


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of all are at or below, between neighbours in proportion."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def intervals_within(result: StreamResult, begin: float, end: float) -> list[float]:
    """Return the times between two chunks of which some part lies between `begin` and `end`.

    All three are `time.perf_counter()` seconds. A stream that stood still over the whole time
    between them gives its one long interval.
    """
    times = result.chunk_times
    return [b - a for a, b in itertools.pairwise(times) if b > begin and a < end]
