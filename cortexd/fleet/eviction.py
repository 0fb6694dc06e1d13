"""Who gives way when memory is short. Pure.

Busy and pinned replicas never come this far: `cortexd.fleet.placement` leaves them out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cortex_core.ids import DeviceName, ReplicaId


@dataclass(frozen=True, slots=True)
class Candidate:
    """An idle replica that could go. `residency` is its class, `held_mb` what it frees where."""

    id: ReplicaId
    residency: int
    last_used_at: float
    held_mb: dict[DeviceName, int]


class EvictionPolicy:
    """Orders candidates, and says which classes may be displaced at all."""

    def __init__(self, strategy: Literal["lru", "priority"]) -> None:
        self._by_class = strategy == "priority"

    def may_displace(self, *, victim: int, own: int) -> bool:
        """Say whether class `own` may take the place of class `victim`.

        Under `priority` a model may displace its own class or below, never above; equal classes
        displace both ways. Under `lru` there are no classes.
        """
        return not self._by_class or victim <= own

    def cost(self, candidate: Candidate) -> tuple[int, float]:
        """Return what losing `candidate` costs; smaller goes first."""
        return (candidate.residency if self._by_class else 0, candidate.last_used_at)

    def victims(
        self, candidates: Sequence[Candidate], *, lacking_mb: dict[DeviceName, int]
    ) -> tuple[Candidate, ...] | None:
        """Return the cheapest candidates that together free what is lacking on every device.

        None where all of them would not be enough. Nobody is named who is not needed.
        """
        chosen: list[Candidate] = []
        for candidate in sorted(candidates, key=self.cost):
            if _frees(chosen, lacking_mb):
                break
            chosen.append(candidate)
        if not _frees(chosen, lacking_mb):
            return None
        for candidate in reversed(list(chosen)):
            rest = [other for other in chosen if other is not candidate]
            if _frees(rest, lacking_mb):
                chosen = rest
        return tuple(chosen)


def _frees(chosen: Sequence[Candidate], lacking_mb: dict[DeviceName, int]) -> bool:
    return all(
        sum(candidate.held_mb.get(device, 0) for candidate in chosen) >= lacking
        for device, lacking in lacking_mb.items()
    )
