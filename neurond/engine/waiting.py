"""The queue of sequences that want a place in the engine, and who is next.

Order: higher priority; then sequences that lost their place after they had begun; then the
principal with the fewest running sequences; then the oldest. Sequences of one principal and
priority never overtake each other, and a principal's turn comes when its running ones end, so
that within a priority nobody starves.
"""

from bisect import insort
from collections import Counter

from neurond.engine.sequence import Sequence

_Bucket = tuple[int, str | None]


class WaitingQueue:
    """Waiting sequences in buckets of equal priority and principal."""

    def __init__(self) -> None:
        self._buckets: dict[_Bucket, list[Sequence]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, seq: Sequence) -> bool:
        return seq in self._buckets.get((seq.priority, seq.principal), ())

    def add(self, seq: Sequence) -> None:
        """Put a sequence in its place."""
        bucket = self._buckets.setdefault((seq.priority, seq.principal), [])
        insort(bucket, seq, key=_place)
        self._size += 1

    def remove(self, seq: Sequence) -> None:
        """Take out a sequence that is in the queue."""
        key = (seq.priority, seq.principal)
        bucket = self._buckets[key]
        bucket.remove(seq)
        self._size -= 1
        if not bucket:
            del self._buckets[key]

    def next(self, running: Counter[str | None]) -> Sequence | None:
        """Return who is next, leaving it in the queue; None if all that wait are held.

        Args:
            running: how many running sequences each principal has.
        """
        best: Sequence | None = None
        best_key: tuple[int, bool, int, int] | None = None
        for (priority, principal), bucket in self._buckets.items():
            seq = next((seq for seq in bucket if not seq.is_held), None)
            if seq is None:
                continue
            key = (-priority, not seq.started, running[principal], seq.arrival)
            if best_key is None or key < best_key:
                best, best_key = seq, key
        return best


def _place(seq: Sequence) -> tuple[bool, int]:
    return not seq.started, seq.arrival
