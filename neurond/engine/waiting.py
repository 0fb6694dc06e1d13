"""The queue of sequences that want a place in the engine, and who is next.

Order: higher priority; then sequences that lost their place after they had begun; then the
principal with the fewest running sequences; then the oldest. A principal's turn comes when its
running ones end, so that within a priority nobody starves; sequences of one principal and priority
overtake each other only as `shortest`, which is for while a long prompt is being computed.
"""

from bisect import insort
from collections import Counter
from collections.abc import Container, Iterator

from neurond.engine.sequence import Bucket, Sequence


class WaitingQueue:
    """Waiting sequences in buckets of equal priority and principal."""

    def __init__(self) -> None:
        self._buckets: dict[Bucket, list[Sequence]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, seq: Sequence) -> bool:
        return seq in self._buckets.get(seq.bucket, ())

    def add(self, seq: Sequence) -> None:
        """Put a sequence in its place."""
        bucket = self._buckets.setdefault(seq.bucket, [])
        insort(bucket, seq, key=_place)
        self._size += 1

    def remove(self, seq: Sequence) -> None:
        """Take out a sequence that is in the queue."""
        bucket = self._buckets[seq.bucket]
        bucket.remove(seq)
        self._size -= 1
        if not bucket:
            del self._buckets[seq.bucket]

    def next(
        self, running: Counter[str | None], *, passing: Container[Bucket] = ()
    ) -> Sequence | None:
        """Return who is next, leaving it in the queue; None if all that wait are held.

        Args:
            running: how many running sequences each principal has.
            passing: buckets that are passed over.
        """
        best: Sequence | None = None
        best_key: tuple[int, bool, int, int] | None = None
        for (priority, principal), bucket in self._buckets.items():
            if (priority, principal) in passing:
                continue
            seq = next((seq for seq in bucket if not seq.is_held), None)
            if seq is None:
                continue
            key = (-priority, not seq.started, running[principal], seq.arrival)
            if best_key is None or key < best_key:
                best, best_key = seq, key
        return best

    def free(self, lowest: int) -> Iterator[Sequence]:
        """Yield who is not held, of priority `lowest` or more: of a bucket in order, buckets in
        none.
        """
        for (priority, _), bucket in self._buckets.items():
            held_by: Sequence | None = None  # most often that of several in a row
            for seq in bucket if priority >= lowest else ():
                if seq.leader is not None and (seq.leader is held_by or seq.leader.is_holding):
                    held_by = seq.leader
                else:
                    yield seq

    def shortest(self, bucket: Bucket) -> Sequence | None:
        """Return who of a bucket has fewest tokens to compute, leaving it in the queue."""
        free = (seq for seq in self._buckets.get(bucket, ()) if not seq.is_held)
        return min(free, key=lambda seq: seq.num_missing, default=None)


def _place(seq: Sequence) -> tuple[bool, int]:
    return not seq.started, seq.arrival
