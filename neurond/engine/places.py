"""Who has a place in the steps and blocks, and who loses them to whom.

A sequence that waits for a place or blocks gets them from those that rank below it by priority,
never from its equals: so sequences do not put each other out in turns. One that runs and grows gets
a block from whoever ranks last, be it of its own priority. Either asks paused sequences first, as
these compute nothing. What was lost is computed again, as far as the prefix cache has not kept it.
"""

from neurond.engine.allocator import BlockAllocator
from neurond.engine.blocks import blocks_for
from neurond.engine.roster import Roster
from neurond.engine.sequence import Sequence, SequenceStatus


class Places:
    """The places and blocks of one scheduler, its only caller; moves sequences accordingly."""

    def __init__(self, max_sequences: int, roster: Roster, allocator: BlockAllocator) -> None:
        self._max_sequences = max_sequences
        self._roster = roster
        self._allocator = allocator
        self.num_preemptions = 0

    @property
    def num_free(self) -> int:
        """Places that nobody has."""
        return self._max_sequences - len(self._roster.running)

    def num_startable(self, lowest: int) -> int:
        """Return how many that wait, of priority `lowest` or more, could have places and blocks.

        About so many: what they could share is not looked for, nor whose turn it is.
        """
        staying = [seq for seq in self._roster.running if seq.priority >= lowest]
        num_places = self._max_sequences - len(staying)
        if num_places <= 0 or not self._roster.waiting:
            return 0
        lower = self._roster.running[len(staying) :]
        num_blocks = self._allocator.num_available - len(staying)
        num_blocks += sum(len(seq.table.blocks) for seq in (*self._paused_owners(), *lower))
        num_startable = 0
        for seq in self._roster.waiting.free(lowest):
            num_blocks -= blocks_for(seq.num_missing, seq.table.block_tokens)
            if num_blocks < 0 or num_startable == num_places:
                break
            num_blocks -= 1  # that it leaves to itself, see `_start`
            num_startable += 1
        return num_startable

    def wait(self, seq: Sequence) -> None:
        """Queue a sequence, new or put out, without blocks."""
        self._allocator.free(seq)
        seq.num_missing = self._allocator.num_missing(seq)
        self._roster.wait(seq)

    def end(self, seq: Sequence) -> None:
        """Take a sequence of whatever status out for good, and its blocks. Idempotent."""
        self._roster.end(seq)
        self._allocator.free(seq)

    def pause(self, seq: Sequence) -> None:
        """Take the place of a sequence, and leave it its blocks. Idempotent."""
        if seq.status in (SequenceStatus.WAITING, SequenceStatus.RUNNING):
            self._roster.pause(seq)

    def resume(self, seq: Sequence) -> None:
        """Give a paused sequence a place, or have it wait for one; others are left alone."""
        if seq.status is not SequenceStatus.PAUSED:
            return
        if seq.table.blocks and self.num_free > 0:
            self._roster.run(seq)
        else:
            self.wait(seq)

    def grow(self, seq: Sequence) -> bool:
        """See to a block for the next token; false if it cost the sequence its own place."""
        while not self._allocator.grow(seq):
            if not self._reclaim_paused() and self._put_out_last() is seq:
                return False
        return True

    def start(self, seq: Sequence) -> list[Sequence] | None:
        """Give a waiting sequence a place and the blocks of all its tokens; return who was put out.

        None, and nobody has lost anything, where all that rank below have not enough together.
        """
        if self._start(seq):
            return []
        running = self._roster.running
        lower = [other for other in running if other.priority < seq.priority]
        owners = [*self._paused_owners(), *lower]
        num_staying = len(running) - len(lower)
        if (
            not owners
            or num_staying >= self._max_sequences
            or not self._allocator.could_start(seq, num_spare=num_staying, without=owners)
        ):
            return None
        put_out: list[Sequence] = []
        while not self._start(seq):
            if self.num_free <= 0 or not self._reclaim_paused():
                put_out.append(self._put_out_last())
        return put_out

    def check(self) -> None:
        """Assert every invariant of the books."""
        self._allocator.check((*self._roster.running, *self._roster.paused))
        assert self.num_free >= 0
        self._roster.check()

    def _start(self, seq: Sequence) -> bool:
        """Start a sequence if a place is free and enough blocks are."""
        # A block for each that runs already keeps a newcomer from being put out again at once.
        num_spare = len(self._roster.running)
        if self.num_free <= 0 or not self._allocator.start(seq, num_spare=num_spare):
            return False
        self._roster.run(seq)
        return True

    def _put_out_last(self) -> Sequence:
        """Put out the running sequence of lowest rank, and return it."""
        victim = self._roster.running[-1]
        self.num_preemptions += 1
        self.wait(victim)
        return victim

    def _reclaim_paused(self) -> bool:
        """Take the blocks of the paused sequence of lowest rank that has any."""
        owners = self._paused_owners()
        if owners:
            self._allocator.free(max(owners, key=lambda seq: seq.rank))
        return bool(owners)

    def _paused_owners(self) -> list[Sequence]:
        return [seq for seq in self._roster.paused if seq.table.blocks]
