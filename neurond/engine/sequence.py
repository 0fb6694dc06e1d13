"""One choice of one request on its way through the engine.

A sequence belongs to one scheduler. Its tokens only grow; its blocks come and go with preemption.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from enum import Enum, auto

from cortex_core.canonical import FinishReason, SamplingParams
from cortex_core.ids import RequestId
from neurond.engine.batch import Row, TokenCounts
from neurond.engine.blocks import BlockTable
from neurond.engine.drafts import Drafter
from neurond.engine.prefix_cache import BlockKey, block_key
from neurond.engine.row_rules import has_penalties

Bucket = tuple[int, str | None]
"""Priority and principal: sequences of one bucket have no claims against each other but age."""


class SequenceStatus(Enum):
    """Where a sequence is; `neurond.engine.scheduler` has the transitions."""

    WAITING = auto()
    """Queued, without blocks: new, preempted, or resumed after its blocks were taken."""
    RUNNING = auto()
    """Owns blocks and a place in every step."""
    PAUSED = auto()
    """Produces nothing; keeps the blocks it has until they are wanted."""
    FINISHED = auto()
    """Owns nothing and never comes back."""


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens, blocks and progress of one choice.

    Invariant: `num_known_blocks * block_tokens <= num_computed < len(token_ids)` until it ends,
    and the K/V of the first `num_computed` tokens are in the table's blocks.
    """

    request_id: RequestId
    row: Row
    table: BlockTable
    stop_token_ids: frozenset[int]
    max_length: int
    """Tokens, prompt included, at which the sequence ends with reason `length`."""
    arrival: int
    """Grows with every sequence that is added; older means smaller."""
    priority: int = 0
    principal: str | None = None
    drafter: Drafter | None = None
    """None where each of its tokens takes a step of its own."""
    leader: Sequence | None = None
    """The request's first choice, whose prompt blocks the others wait for and share."""
    status: SequenceStatus = SequenceStatus.WAITING
    num_computed: int = 0
    num_known_blocks: int = 0
    """Leading blocks that are in the prefix cache."""
    num_reached: int = 0
    """The most that `num_computed` was when it lost its blocks."""
    num_cached: int = 0
    """Tokens that were in the prefix cache when it first came to them."""
    num_cached_told: int | None = None
    """Of which the client knows; None where it is told of another choice's."""
    num_missing: int = 0
    """Tokens that were not in the prefix cache when it began to wait."""
    started: bool = False
    """It has had blocks at least once."""
    num_scored: int = 0
    """Tokens behind the prompt's first one whose log probability was told."""
    num_to_score: int = 0
    """Of which it is wanted, all that stand behind the first or none."""
    token_ids: array[int] = field(init=False)
    """The same object as `row.token_ids`."""

    def __post_init__(self) -> None:
        self.token_ids = self.row.token_ids
        sampling = self.row.sampling
        if sampling.scores_prompt and sampling.logprobs is not None and not self.row.choice:
            self.num_to_score = self.row.num_prompt_tokens - 1

    @property
    def stream(self) -> int:
        return self.row.stream

    @property
    def bucket(self) -> Bucket:
        return self.priority, self.principal

    @property
    def num_left(self) -> int:
        """Tokens that have no K/V yet."""
        return len(self.token_ids) - self.num_computed

    @property
    def has_scores_to_come(self) -> bool:
        return self.num_scored < self.num_to_score

    @property
    def num_skippable(self) -> int:
        """Leading tokens that need not be computed where somebody else has done so."""
        return self.num_scored if self.has_scores_to_come else len(self.token_ids) - 1

    def to_score(self, num_tokens: int) -> range:
        """Return the places among the next `num_tokens` whose logits are wanted for scores."""
        start = max(self.num_computed, self.num_scored)
        return range(start, max(start, min(self.num_computed + num_tokens, self.num_to_score)))

    def skip(self, stop: int) -> None:
        """Take the K/V of the tokens up to `stop` from what others, or it itself, computed."""
        self.num_cached += max(0, stop - max(self.num_computed, self.num_reached))
        self.num_computed = stop

    @property
    def num_cached_of_prompt(self) -> int:
        """As `num_cached`, without output that is replayed."""
        return min(self.num_cached, self.row.num_prompt_tokens)

    def cut(self, stop: int) -> int:
        """Return the last place up to `stop` between two tokens that need not be computed in one
        step, or at an end.
        """
        for first, behind in self.row.two_way:
            if first < stop < behind:
                return first
        return stop

    def next_cut(self, start: int, stop: int) -> int:
        """Return where a chunk from `start` on may end first: at `stop`, or before or behind a run
        of tokens that are computed in one step.
        """
        for first, behind in self.row.two_way:
            if first <= start < behind:
                return behind
            if start < first < stop:
                return first
        return stop

    @property
    def next_block(self) -> BlockKey | None:
        """What the prefix cache will know its next block by; None if it is not going to be full."""
        size, start = self.table.block_tokens, self.num_computed
        if start != self.num_known_blocks * size or self.num_left <= size:
            return None
        if start + size > self.num_skippable:
            return None
        before = self.table.blocks[self.num_known_blocks - 1] if self.num_known_blocks else None
        return block_key(before, self.token_ids, start, start + size, self.row.images)

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts sequences best first: high priority, then old."""
        return -self.priority, self.arrival

    @property
    def is_held(self) -> bool:
        """True while the first choice is still computing the prompt that this one shares."""
        return self.leader is not None and self.leader.is_holding

    @property
    def is_holding(self) -> bool:
        """Whether those that it leads have to wait for its prompt.

        Also where it is paused, if the prompt has scores to come: they go before all tokens.
        """
        if self.has_scores_to_come:
            return self.status is not SequenceStatus.FINISHED
        return (
            self.status in (SequenceStatus.WAITING, SequenceStatus.RUNNING)
            and self.num_computed < self.row.num_prompt_tokens
            and self.row.num_prompt_tokens > self.table.block_tokens
        )

    def append(self, token_id: int) -> FinishReason | None:
        """Take a chosen token; return why the sequence ends with it, if it does."""
        self.token_ids.append(token_id)
        counts = self.row.counts
        if counts is not None:
            counts.output[token_id] = counts.output.get(token_id, 0) + 1
        if token_id in self.stop_token_ids:
            return "stop"
        grammar = self.row.grammar
        if grammar is not None and grammar.advance(token_id):
            return "stop"
        return "length" if len(self.token_ids) >= self.max_length else None


def count_tokens(
    sampling: SamplingParams, token_ids: array[int], num_prompt_tokens: int
) -> TokenCounts | None:
    """Return the counts that the penalties in `sampling` need, None where there are none."""
    if not has_penalties(sampling):
        return None
    output: dict[int, int] = {}
    for token_id in token_ids[num_prompt_tokens:]:
        output[token_id] = output.get(token_id, 0) + 1
    return TokenCounts(prompt=frozenset(token_ids[:num_prompt_tokens]), output=output)
