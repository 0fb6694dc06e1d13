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
| RUNNING | its place or blocks are wanted for a higher priority | WAITING, without blocks |
| RUNNING | a row fails beside drafts | WAITING, without blocks and drafts |
| PAUSED | blocks run out | PAUSED, without blocks |
| PAUSED with blocks | resume, and there is a place | RUNNING |
| PAUSED | resume | WAITING, without blocks |
| any | remove, or its last token | FINISHED |

A step computes one token of every running sequence that has but one to compute (decode), then
chunks of the others (prefill): as many tokens as `neurond.engine.pacing` allows beside the decodes,
dealt out by `neurond.engine.shares`. Sequences start while tokens are left for them; where prompts
have a claim on all of them, one more starts only where it would get some all the same.

A sequence gets the blocks of all its tokens when it starts and one more whenever it grows out of
them. When none is to be had, paused sequences lose theirs first, then the running sequence of
lowest priority, of these the youngest; see `neurond.engine.places`.

In a step without prompts, where rows more cost little, those who decode may have drafted tokens
computed behind their own (`neurond.engine.drafts`). For these no sequence is put out. The first
token that is chosen otherwise than drafted ends the draft; K/V of the rest are written over later.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Callable, Iterator
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

from cortex_core.canonical import FinishReason
from cortex_core.errors import ErrorInfo
from neurond.engine.allocator import BlockAllocator
from neurond.engine.assemble import Chunk, Draft, assemble
from neurond.engine.batch import SampledToken, ScheduledBatch
from neurond.engine.blocks import BlockTable
from neurond.engine.config import SchedulerConfig
from neurond.engine.draft_pace import DraftPace
from neurond.engine.drafts import most_drafts
from neurond.engine.pacing import PrefillPace
from neurond.engine.places import Places
from neurond.engine.roster import Roster
from neurond.engine.sequence import Bucket, Sequence, SequenceStatus
from neurond.engine.shares import PromptShares

PASSING_SHARE = 0.5
"""A prompt may pass others that are being computed if it is so much shorter than what they lack."""


@dataclass(slots=True)
class Step:
    """What to compute now. `batch` is None where nothing can run."""

    batch: ScheduledBatch | None
    admitted: list[Sequence]
    """Sequences that got blocks for the first time."""
    arriving: list[Sequence]
    """Sequences of whose tokens none can be found in the prefix cache any more."""


@dataclass(slots=True)
class StepResults:
    """What a computed step did to the sequences it sampled."""

    tokens: list[tuple[Sequence, SampledToken, FinishReason | None]]
    scores: list[tuple[Sequence, SampledToken]]
    """Tokens of prompts that were to be scored, in their order."""
    failed: list[tuple[Sequence, ErrorInfo]]
    """Rows that the runner could not sample; still running, the caller removes them."""


class Scheduler:
    """Sequences by status, and the blocks they own."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self._allocator = BlockAllocator(config.num_blocks, config.block_tokens)
        self._roster = Roster()
        self._places = Places(config.max_sequences, self._roster, self._allocator)
        self._pace = PrefillPace()
        self._draft_pace = DraftPace()
        self._shares = PromptShares(config.block_tokens)
        self._num_rows = max(config.max_rows, config.max_sequences)
        self._chunks: list[Chunk] = []  # of the step that is being computed
        self._computing = 0, 0  # its tokens of decodes and of prompts
        self._num_decodes = 0  # of that step
        self._num_chosen = 0  # in that step
        self._drafts: dict[Sequence, array[int]] = {}  # of that step
        self.num_drafted_tokens = 0
        self.num_accepted_tokens = 0
        """Drafted tokens that were chosen."""

    @property
    def num_running(self) -> int:
        return len(self._roster.running)

    @property
    def num_waiting(self) -> int:
        return len(self._roster.waiting)

    @property
    def num_paused(self) -> int:
        return len(self._roster.paused)

    @property
    def num_preemptions(self) -> int:
        """How often a sequence lost its place to another one."""
        return self._places.num_preemptions

    @property
    def decoding(self) -> list[int]:
        """Priorities of those that decode next, highest first."""
        return [seq.priority for seq in self._roster.running if seq.num_left == 1]

    @property
    def num_available_blocks(self) -> int:
        """Blocks that no sequence owns; idle ones of the prefix cache included."""
        return self._allocator.num_available

    @property
    def num_cached_blocks(self) -> int:
        """Blocks that no sequence owns and that the prefix cache has kept."""
        return self._allocator.num_cached

    @property
    def frontier(self) -> int:
        """The first of the blocks that no sequence was given yet: all from it on."""
        return self._allocator.frontier

    def has_room_for(self, num_sequences: int) -> bool:
        """Tell whether the queue takes so many more; an empty queue always does."""
        waiting = self.num_waiting
        places = self.config.max_waiting + self.config.max_sequences - self.num_running
        return waiting == 0 or waiting + num_sequences <= places

    def new_table(self) -> BlockTable:
        """Return an empty table for a new sequence."""
        return self._allocator.new_table()

    def add(self, seq: Sequence) -> None:
        """Queue a new sequence."""
        self._places.wait(seq)

    def remove(self, seq: Sequence) -> None:
        """End a sequence in whatever status, and give its blocks back. Idempotent."""
        self._places.end(seq)

    def pause(self, seq: Sequence) -> None:
        """Compute nothing more for a sequence until it is resumed. Idempotent."""
        self._places.pause(seq)

    def resume(self, seq: Sequence) -> None:
        """Let a paused sequence go on; others are left alone."""
        self._places.resume(seq)

    def schedule(self, decoding_elsewhere: Callable[[], AbstractSequence[int]] = tuple) -> Step:
        """Decide the next step and take the blocks it needs; see `Engine.step`."""
        running = self._roster.running
        # Growing may put out sequences at the end of the list, which are then not reached.
        decodes = [seq for seq in running if seq.num_left == 1 and self._places.grow(seq)]
        prompts: list[Sequence] = []
        admitted: list[Sequence] = []
        prefills: list[Chunk] = []
        # Most steps only decode, and what they do not touch need not be fetched from memory again.
        if self._roster.waiting or len(decodes) < len(running) or self._shares.is_owing:
            prompts = [seq for seq in running if seq.num_left > 1]
            admitted, prefills = self._pick_prompts(prompts, decodes, decoding_elsewhere())
        drafted: list[Draft] = []
        if self.config.max_draft_rows and not prefills:
            drafted = self._pick_drafts(decodes)
        self._drafts = dict(drafted)
        self._num_decodes = len(decodes)
        plain = [seq for seq in decodes if seq not in self._drafts] if drafted else decodes
        self._chunks = [(seq, 1) for seq in (*plain, *self._drafts)] + prefills
        arriving = _arriving(prompts, dict(prefills))
        if not self._chunks:
            self._computing = 0, 0
            return Step(None, admitted, arriving)
        batch = assemble(plain, drafted, prefills)
        num_prefilled = sum([num_tokens for _, num_tokens in prefills])
        self._computing = batch.num_tokens - num_prefilled, num_prefilled
        return Step(batch, admitted, arriving)

    def took(self, seconds: float) -> None:
        """Learn how long the step took that was scheduled last; nothing if it was abandoned."""
        if any(self._computing):
            self._pace.took(*self._computing, seconds)
        num_rows, num_prefilled = self._computing
        if num_rows and not num_prefilled and self.config.max_draft_rows:
            self._draft_pace.took(self._num_decodes, num_rows, self._num_chosen, seconds)

    def complete(self, sampled: AbstractSequence[SampledToken | ErrorInfo]) -> StepResults:
        """Take what the runner chose for the rows of the scheduled batch, in their order."""
        results = StepResults([], [], [])
        chosen = iter(sampled)
        for seq, num_tokens in self._chunks:
            if seq.has_scores_to_come:
                self._score(seq, num_tokens, chosen, results)
            if seq.num_computed + num_tokens < len(seq.token_ids):
                self._allocator.computed(seq, num_tokens)
                continue
            token = next(chosen)
            if seq in self._drafts:
                behind = [next(chosen) for _ in self._drafts[seq]]
                self._take_drafted(seq, token, behind, results)
            elif isinstance(token, ErrorInfo):
                # What the runner could not use is not offered to other sequences either.
                results.failed.append((seq, token))
            else:
                self._take(seq, num_tokens, token, results)
        self._chunks = []
        self._num_chosen = len(results.tokens)
        return results

    def abandon(self) -> list[Sequence]:
        """Forget the scheduled step, which was not computed; return the sequences in it."""
        abandoned = [seq for seq, _ in self._chunks]
        self._chunks = []
        self._computing = 0, 0  # how long it took says nothing about what a step takes
        return abandoned

    def check(self) -> None:
        """Assert every invariant of the books; for tests, and for an engine that is idle."""
        self._places.check()

    def _pick_prompts(
        self,
        prompts: list[Sequence],
        decodes: list[Sequence],
        elsewhere: AbstractSequence[int],
    ) -> tuple[list[Sequence], list[Chunk]]:
        """Return whom to admit, and the chunks of prompts beside those who decode.

        Who starts is put among `prompts`; who is put out for it is taken out of them or `decodes`.
        """
        num_decodes = len(decodes)
        # Who ranks below one who decodes is not to make it wait for longer.
        lowest = max([*(seq.priority for seq in decodes[:1]), *elsewhere], default=0)
        num_ready = sum(seq.priority >= lowest for seq in prompts)
        num_ready += self._places.num_startable(lowest)
        # Decodes that take all tokens have all places, too: who starts has put one of them out.
        most = max(self.config.step_tokens - num_decodes, 1)
        budget = self._pace.prefill_tokens(num_decodes, most, num_ready, len(elsewhere))
        for seq in prompts:
            self._allocator.adopt(seq)
        admitted = self._admit(prompts, decodes, budget)
        spare_rows = self._num_rows - len(decodes) - len(prompts)
        return admitted, self._shares.deal(prompts, budget, spare_rows)

    def _pick_drafts(self, decodes: list[Sequence]) -> list[Draft]:
        drafted: list[Draft] = []
        most_rows = min(self.config.max_draft_rows, self.config.step_tokens)
        rows = self._draft_pace.most_rows(len(decodes), most_rows)
        most = most_drafts(len(decodes), rows)
        for seq in decodes if most > 0 else ():
            num_tokens = min(most, seq.max_length - len(seq.token_ids) - 1)
            if seq.drafter is None or num_tokens < 1:
                continue
            drafts = seq.drafter.draft(seq.token_ids, num_tokens, seq.row.grammar)
            room = self._allocator.grow_for_drafts(seq, len(drafts), num_spare=self.num_running)
            if room:
                drafted.append((seq, drafts[:room]))
        return drafted

    def _score(
        self,
        seq: Sequence,
        num_tokens: int,
        chosen: Iterator[SampledToken | ErrorInfo],
        results: StepResults,
    ) -> None:
        """Take the scores of the next `num_tokens` tokens of a prompt."""
        for place in seq.to_score(num_tokens):
            token = next(chosen)
            if isinstance(token, ErrorInfo):
                results.failed.append((seq, token))
                continue
            scored = SampledToken(seq.token_ids[place + 1], token.logprob, token.top)
            results.scores.append((seq, scored))
            seq.num_scored = place + 1

    def _take(
        self, seq: Sequence, num_computed: int, token: SampledToken, results: StepResults
    ) -> None:
        """Take the token that was chosen behind the next `num_computed` ones."""
        self._allocator.computed(seq, num_computed)
        reason = seq.append(token.token_id)
        results.tokens.append((seq, token, reason))
        if reason is not None:
            self.remove(seq)

    def _take_drafted(
        self,
        seq: Sequence,
        token: SampledToken | ErrorInfo,
        behind: list[SampledToken | ErrorInfo],
        results: StepResults,
    ) -> None:
        """Take a token, and those chosen `behind` the drafts after it as far as these were right.

        Where a row failed, a draft may be to blame. Its keys and values are not finite then, which
        what a query does not see has to be. So the failure is not told: the sequence gives its
        blocks back, which are cleared when they are used again, and goes on without drafts.
        """
        drafts = self._drafts[seq]
        num_accepted = 0
        if not isinstance(token, ErrorInfo):
            self._take(seq, 1, token, results)
            num_accepted = self._verify(seq, token, drafts, behind, results)
        assert seq.drafter is not None
        seq.drafter.verified(num_accepted)
        self.num_drafted_tokens += len(drafts)
        self.num_accepted_tokens += num_accepted
        if any(isinstance(each, ErrorInfo) for each in (token, *behind)):
            seq.drafter = None
            if seq.status is SequenceStatus.RUNNING:
                self._places.wait(seq)

    def _verify(
        self,
        seq: Sequence,
        token: SampledToken,
        drafts: array[int],
        behind: list[SampledToken | ErrorInfo],
        results: StepResults,
    ) -> int:
        """Take tokens chosen `behind` drafts, as long as the drafts are what was chosen there."""
        num_accepted = 0
        for drafted, following in zip(drafts, behind, strict=True):
            if (
                seq.status is not SequenceStatus.RUNNING  # it has ended
                or token.token_id != drafted
                or isinstance(following, ErrorInfo)
            ):
                break
            num_accepted += 1
            self._take(seq, 1, following, results)
            token = following
        return num_accepted

    def _admit(
        self, prompts: list[Sequence], decodes: list[Sequence], budget: int
    ) -> list[Sequence]:
        """Start those whose turn it is, putting them among `prompts`; return the new ones of them.

        Who is put out for them is taken out of `prompts` or `decodes`.
        """
        admitted: list[Sequence] = []
        claims = _claims(prompts)
        while budget:
            idle = claims[False] + min(claims[True], self._num_rows) < budget
            seq = self._roster.next() if idle else self._passing(prompts)
            put_out = None if seq is None else self._places.start(seq)
            if seq is None or put_out is None:
                break
            for victim in put_out:
                (decodes if victim in decodes else prompts).remove(victim)
            if put_out:
                claims = _claims(prompts)
            insort(prompts, seq, key=lambda seq: seq.rank)
            claims[seq.has_scores_to_come] += seq.num_left
            if not seq.started:
                seq.started = True
                admitted.append(seq)
        return admitted

    def _passing(self, prompts: list[Sequence]) -> Sequence | None:
        """Return who gets tokens although `prompts` could use them all: the first of a principal
        that has no prompt among them, or one much shorter than its principal's others.
        """
        priority = prompts[0].priority
        lacking: dict[Bucket, int] = {}
        for seq in prompts:
            lacking[seq.bucket] = min(seq.num_left, lacking.get(seq.bucket, seq.num_left))
        first = self._roster.next(passing=lacking)
        if first is not None and first.priority >= priority:
            return first
        for bucket, num_left in lacking.items():
            short = self._roster.waiting.shortest(bucket) if bucket[0] == priority else None
            if short is not None and short.num_missing <= PASSING_SHARE * num_left:
                return short
        return None


def _arriving(prompts: list[Sequence], granted: dict[Sequence, int]) -> list[Sequence]:
    """Return those of whom this step leaves but the last token, which is always computed."""
    return [seq for seq in prompts if seq.num_left - granted.get(seq, 0) <= 1]


def _claims(prompts: list[Sequence]) -> dict[bool, int]:
    """Return how many tokens are left to compute, by whether they are scored, which share the
    step's rows.
    """
    claims = {False: 0, True: 0}
    for prompt in prompts:
        claims[prompt.has_scores_to_come] += prompt.num_left
    return claims
