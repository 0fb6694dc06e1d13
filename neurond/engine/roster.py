"""Which sequence has which status, and who of those that run or wait comes first.

It moves sequences, whatever the scheduler decides; their blocks are no matter of its own.
"""

from bisect import insort
from collections import Counter
from collections.abc import Container

from neurond.engine.sequence import Bucket, Sequence, SequenceStatus
from neurond.engine.waiting import WaitingQueue


class Roster:
    """The sequences of one scheduler, its only caller. Collections are read there, not written.

    A sequence may come from any status, or be a new one.
    """

    def __init__(self) -> None:
        self.running: list[Sequence] = []
        """Sorted by rank, best first."""
        self.paused: dict[Sequence, None] = {}
        self.waiting = WaitingQueue()
        self._running_of: Counter[str | None] = Counter()

    def run(self, seq: Sequence) -> None:
        self._move(seq, SequenceStatus.RUNNING)
        insort(self.running, seq, key=lambda seq: seq.rank)
        self._running_of[seq.principal] += 1

    def wait(self, seq: Sequence) -> None:
        """Queue a sequence; `num_missing` is up to date."""
        self._move(seq, SequenceStatus.WAITING)
        self.waiting.add(seq)

    def pause(self, seq: Sequence) -> None:
        self._move(seq, SequenceStatus.PAUSED)
        self.paused[seq] = None

    def end(self, seq: Sequence) -> None:
        self._move(seq, SequenceStatus.FINISHED)

    def next(self, *, passing: Container[Bucket] = ()) -> Sequence | None:
        """See `WaitingQueue.next`."""
        return self.waiting.next(self._running_of, passing=passing)

    def check(self) -> None:
        """Assert that statuses, orders and counts are right."""
        assert self.running == sorted(self.running, key=lambda seq: seq.rank)
        assert all(seq.status is SequenceStatus.RUNNING for seq in self.running)
        assert all(seq.status is SequenceStatus.PAUSED for seq in self.paused)
        assert self._running_of == Counter(seq.principal for seq in self.running)

    def _move(self, seq: Sequence, status: SequenceStatus) -> None:
        """Take a sequence out of the collection of its status, and give it another one."""
        match seq.status:
            case SequenceStatus.WAITING if seq in self.waiting:
                self.waiting.remove(seq)
            case SequenceStatus.RUNNING:
                self.running.remove(seq)
                self._running_of[seq.principal] -= 1
                if not self._running_of[seq.principal]:
                    del self._running_of[seq.principal]
            case SequenceStatus.PAUSED:
                del self.paused[seq]
            case _:  # a new one, or one that has ended
                pass
        seq.status = status
