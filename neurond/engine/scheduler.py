"""Who gets computed in the next step: continuous batching over a pool of blocks.

Owned by one `Engine`, in the actor's one thread. It decides and keeps the books; the runner
computes. `schedule` and `complete` (or `abandon`) alternate, every other method stands between
the two pairs.

| from | event | to |
|---|---|---|
| - | add | WAITING |
| WAITING | it is next, and its blocks and a place are there | RUNNING |
| WAITING, RUNNING | pause | PAUSED, with the blocks it has |
| RUNNING | blocks run out and nobody ranks lower | WAITING, without blocks |
| PAUSED | blocks run out | PAUSED, without blocks |
| PAUSED with blocks | resume, and there is a place | RUNNING |
| PAUSED | resume | WAITING, without blocks |
| any | remove, or its last token | FINISHED |

A step computes one token of every running sequence that has but one to compute (decode), then
chunks of the others (prefill), best rank first, up to the token budget. A sequence gets the blocks
of all its tokens when it starts and one more whenever it grows out of them. When none is to be
had, paused sequences lose theirs first, then the running sequence of lowest priority, of these
the youngest. What was lost is computed again, as far as the prefix cache has not kept it.
"""

from bisect import insort
from collections import Counter
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

from cortex_core.canonical import FinishReason
from cortex_core.errors import ErrorInfo
from neurond.engine.allocator import BlockAllocator
from neurond.engine.assemble import Chunk, assemble
from neurond.engine.batch import SampledToken, ScheduledBatch
from neurond.engine.blocks import BlockTable
from neurond.engine.config import SchedulerConfig
from neurond.engine.sequence import Sequence, SequenceStatus
from neurond.engine.waiting import WaitingQueue


@dataclass(slots=True)
class Step:
    """What to compute now. `batch` is None where nothing can run."""

    batch: ScheduledBatch | None
    admitted: list[tuple[Sequence, int]]
    """Sequences that got blocks for the first time, with their number of cached tokens."""


@dataclass(slots=True)
class StepResults:
    """What a computed step did to the sequences it sampled."""

    tokens: list[tuple[Sequence, SampledToken, FinishReason | None]]
    failed: list[tuple[Sequence, ErrorInfo]]
    """Rows that the runner could not sample; still running, the caller removes them."""


class Scheduler:
    """Sequences by status, and the blocks they own."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self._allocator = BlockAllocator(config.num_blocks, config.block_tokens)
        self._waiting = WaitingQueue()
        self._running: list[Sequence] = []  # sorted by rank, best first
        self._paused: dict[Sequence, None] = {}
        self._running_of: Counter[str | None] = Counter()
        self._chunks: list[Chunk] = []  # of the step that is being computed
        self.num_preemptions = 0

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_paused(self) -> int:
        return len(self._paused)

    @property
    def num_available_blocks(self) -> int:
        """Blocks that no sequence owns; idle ones of the prefix cache included."""
        return self._allocator.num_available

    @property
    def num_cached_blocks(self) -> int:
        """Blocks that no sequence owns and that the prefix cache has kept."""
        return self._allocator.num_cached

    def has_room_for(self, num_sequences: int) -> bool:
        """Tell whether the queue takes so many more; an empty queue always does."""
        waiting = len(self._waiting)
        places = self.config.max_waiting + self.config.max_sequences - len(self._running)
        return waiting == 0 or waiting + num_sequences <= places

    def new_table(self) -> BlockTable:
        """Return an empty table for a new sequence."""
        return self._allocator.new_table()

    def add(self, seq: Sequence) -> None:
        """Queue a new sequence."""
        self._waiting.add(seq)

    def remove(self, seq: Sequence) -> None:
        """End a sequence in whatever status, and give its blocks back. Idempotent."""
        self._leave(seq)
        self._allocator.free(seq)
        seq.status = SequenceStatus.FINISHED

    def pause(self, seq: Sequence) -> None:
        """Compute nothing more for a sequence until it is resumed. Idempotent."""
        if seq.status in (SequenceStatus.WAITING, SequenceStatus.RUNNING):
            self._leave(seq)
            seq.status = SequenceStatus.PAUSED
            self._paused[seq] = None

    def resume(self, seq: Sequence) -> None:
        """Let a paused sequence go on; others are left alone."""
        if seq.status is not SequenceStatus.PAUSED:
            return
        self._leave(seq)
        if seq.table.blocks and len(self._running) < self.config.max_sequences:
            self._run(seq)
        else:
            self._wait(seq)

    def schedule(self) -> Step:
        """Decide the next step and take the blocks it needs."""
        decodes = self._pick_decodes()
        budget = self.config.step_tokens - len(decodes)
        prefills, budget = self._pick_prefills(budget)
        admitted: list[tuple[Sequence, int]] = []
        while budget > 0:
            seq = self._admit()
            if seq is None:
                break
            if not seq.started:
                seq.started = True
                admitted.append((seq, seq.num_computed))
            num_tokens = self._chunk_tokens(seq, budget)
            prefills.append((seq, num_tokens))
            budget -= num_tokens
        self._chunks = [(seq, 1) for seq in decodes] + prefills
        return Step(assemble(decodes, prefills) if self._chunks else None, admitted)

    def complete(self, sampled: AbstractSequence[SampledToken | ErrorInfo]) -> StepResults:
        """Take what the runner chose for the rows of the scheduled batch, in their order."""
        results = StepResults([], [])
        chosen = iter(sampled)
        for seq, num_tokens in self._chunks:
            if seq.num_computed + num_tokens < len(seq.token_ids):
                self._allocator.computed(seq, num_tokens)
                continue
            token = next(chosen)
            if isinstance(token, ErrorInfo):
                # What the runner could not use is not offered to other sequences either.
                results.failed.append((seq, token))
                continue
            self._allocator.computed(seq, num_tokens)
            reason = seq.append(token.token_id)
            results.tokens.append((seq, token, reason))
            if reason is not None:
                self.remove(seq)
        self._chunks = []
        return results

    def abandon(self) -> list[Sequence]:
        """Forget the scheduled step, which was not computed; return the sequences in it."""
        abandoned = [seq for seq, _ in self._chunks]
        self._chunks = []
        return abandoned

    def check(self) -> None:
        """Assert every invariant of the books; for tests, and for an engine that is idle."""
        self._allocator.check((*self._running, *self._paused))
        assert len(self._running) <= self.config.max_sequences
        assert self._running == sorted(self._running, key=lambda seq: seq.rank)
        assert all(seq.status is SequenceStatus.RUNNING for seq in self._running)
        assert all(seq.status is SequenceStatus.PAUSED for seq in self._paused)
        assert self._running_of == Counter(seq.principal for seq in self._running)

    def _pick_decodes(self) -> list[Sequence]:
        # Growing may put out sequences at the end of the list, which are then not reached.
        return [
            seq
            for seq in self._running
            if len(seq.token_ids) - seq.num_computed == 1 and self._grow(seq)
        ]

    def _pick_prefills(self, budget: int) -> tuple[list[Chunk], int]:
        prefills: list[Chunk] = []
        for seq in self._running:
            if budget == 0:
                break
            if len(seq.token_ids) - seq.num_computed > 1:
                self._allocator.adopt(seq)
                num_tokens = self._chunk_tokens(seq, budget)
                prefills.append((seq, num_tokens))
                budget -= num_tokens
        return prefills, budget

    def _chunk_tokens(self, seq: Sequence, budget: int) -> int:
        """Return how many tokens of a prompt to compute: whole blocks, where there is a choice."""
        start = seq.num_computed
        stop = min(start + budget, len(seq.token_ids))
        if stop < len(seq.token_ids):
            aligned = stop - stop % self.config.block_tokens
            stop = aligned if aligned > start else stop
        return stop - start

    def _grow(self, seq: Sequence) -> bool:
        """See to a block for the next token; false if it cost the sequence its own place."""
        while not self._allocator.grow(seq):
            if self._reclaim_paused():
                continue
            victim = self._running[-1]
            self._preempt(victim)
            if victim is seq:
                return False
        return True

    def _admit(self) -> Sequence | None:
        """Give the next waiting sequence a place and the blocks of its tokens, if there are any."""
        if len(self._running) >= self.config.max_sequences:
            return None
        seq = self._waiting.next(self._running_of)
        if seq is None:
            return None
        # A block for each that runs already keeps a newcomer from being put out again at once.
        while not self._allocator.start(seq, num_spare=len(self._running)):
            if not self._reclaim_paused():
                return None
        self._leave(seq)
        self._run(seq)
        return seq

    def _preempt(self, seq: Sequence) -> None:
        self.num_preemptions += 1
        self._leave(seq)
        self._wait(seq)

    def _reclaim_paused(self) -> bool:
        """Take the blocks of the paused sequence of lowest rank that has any."""
        owners = [seq for seq in self._paused if seq.table.blocks]
        if owners:
            self._allocator.free(max(owners, key=lambda seq: seq.rank))
        return bool(owners)

    def _run(self, seq: Sequence) -> None:
        seq.status = SequenceStatus.RUNNING
        insort(self._running, seq, key=lambda seq: seq.rank)
        self._running_of[seq.principal] += 1

    def _wait(self, seq: Sequence) -> None:
        self._allocator.free(seq)
        seq.status = SequenceStatus.WAITING
        self._waiting.add(seq)

    def _leave(self, seq: Sequence) -> None:
        """Take a sequence out of the collection of its status; its blocks stay its own."""
        match seq.status:
            case SequenceStatus.WAITING:
                self._waiting.remove(seq)
            case SequenceStatus.RUNNING:
                self._running.remove(seq)
                self._running_of[seq.principal] -= 1
                if not self._running_of[seq.principal]:
                    del self._running_of[seq.principal]
            case SequenceStatus.PAUSED:
                del self._paused[seq]
            case SequenceStatus.FINISHED:
                pass
