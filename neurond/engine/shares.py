"""Who gets how much of the tokens that a step has for prompts.

A higher priority gets all it can use. Within one, principals get equal shares however many prompts
each has. Of a principal's share one half goes to its oldest prompt, which so arrives however many
short ones come after it, and one half to the one with the fewest tokens left, which so does not
wait for a long one before it; with one prompt, or several alike, that is first come, first served.

Tokens are dealt in whole blocks, as far as the budget has a whole one. Those that see each other
both ways are dealt together to who is first, also if they are more than the budget: beside all
decodes a step has room for one such run (`SchedulerConfig`). A budget of 0 deals nothing. A share
that is smaller than a block is made good in later steps: whoever has had least is next. Where that
is not enough, as others of a higher priority come in every step, who was passed over with tokens
left goes before all others as soon as these come to what it lacked. Prompts that begin alike are
not computed side by side: one is, and the others adopt its blocks in the next step.

Tokens that are scored take a row of logits each, of which a step has few. A prompt gets no more
tokens than it has rows for; what others can use goes to them.
"""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass, field
from itertools import groupby

from neurond.engine.assemble import Chunk
from neurond.engine.prefix_cache import BlockKey
from neurond.engine.sequence import Bucket, Sequence


@dataclass(slots=True)
class _Line:
    """Prompts of one priority and principal."""

    prompts: list[Sequence]
    """Those with tokens left in this step's deal, oldest first."""
    priority: int
    served_tokens: int
    """Since it last had nothing to compute, on a scale that all lines of its priority share."""
    ahead_tokens: int = 0
    """What its oldest prompts have had more than its shortest ones."""

    def next(self, left: dict[Sequence, int]) -> Sequence:
        """Return who gets tokens now."""
        return self.prompts[0] if self.ahead_tokens <= 0 else self._shortest(left)

    def serve(self, seq: Sequence, num_tokens: int, left: dict[Sequence, int]) -> None:
        """Take account of tokens that one of the prompts gets."""
        self.served_tokens += num_tokens
        self.ahead_tokens += num_tokens * (seq is self.prompts[0])
        self.ahead_tokens -= num_tokens * (seq is self._shortest(left))
        left[seq] -= num_tokens
        if not left[seq]:
            self.leave(seq)

    def leave(self, seq: Sequence) -> None:
        """Let one of the prompts have nothing more in this step."""
        self.prompts.remove(seq)

    def follow(self, seq: Sequence, line: _Line) -> None:
        """Let one of the prompts have in the next step what one of `line` computes in this one."""
        self.leave(seq)
        if line.priority == self.priority:
            self.served_tokens = max(self.served_tokens, line.served_tokens)

    def _shortest(self, left: dict[Sequence, int]) -> Sequence:
        return min(self.prompts, key=left.__getitem__)


@dataclass(slots=True)
class _Deal:
    """What a step has, and who got how much of it so far."""

    tokens: int
    spare_rows: int
    """Beside one for each prompt."""
    left: dict[Sequence, int]
    granted: dict[Sequence, int]
    begun: dict[BlockKey, _Line] = field(default_factory=dict)
    """Blocks that are computed in this step, and by whom."""

    def fitting(self, seq: Sequence, num_tokens: int) -> int:
        """Return how many of its next `num_tokens` tokens a prompt has rows for."""
        granted = self.granted[seq]
        spare = self.spare_rows + spare_rows_of(seq, granted)
        while num_tokens and spare_rows_of(seq, granted + num_tokens) > spare:
            num_tokens -= 1
        return num_tokens

    def grant(self, seq: Sequence, num_tokens: int) -> None:
        """Give a prompt tokens, and the rows that go with them."""
        self.spare_rows += spare_rows_of(seq, self.granted[seq])
        self.granted[seq] += num_tokens
        self.spare_rows -= spare_rows_of(seq, self.granted[seq])
        self.tokens -= num_tokens


class PromptShares:
    """Deals a step's tokens out, and remembers who has had how many. One writer: its scheduler."""

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._lines: dict[Bucket, _Line] = {}
        self._lacking: dict[Sequence, int] = {}
        """Who was passed over since it last got tokens: what it wanted, less what was left."""

    @property
    def is_owing(self) -> bool:
        """Whether somebody got less than it could use of the last deal."""
        return bool(self._lines)

    def deal(
        self, prompts: AbstractSequence[Sequence], budget: int, spare_rows: int = 0
    ) -> list[Chunk]:
        """Return chunks of `prompts`, which stand best rank first, of `budget` tokens at most.

        One run of tokens that see each other both ways may be dealt alone of a smaller budget.

        Args:
            budget: 0 is for a step without prompts; whose turn it is stays as it is.
            spare_rows: rows of logits beside one for each prompt.
        """
        left = {seq: seq.num_left for seq in prompts}
        if (
            sum(left.values()) <= budget
            and sum(spare_rows_of(seq, num_left) for seq, num_left in left.items()) <= spare_rows
        ):
            self._lines.clear()
            self._lacking.clear()
            return list(left.items())
        self._line_up(prompts)
        if budget <= 0:
            return []
        deal = _Deal(budget, spare_rows, left, dict.fromkeys(prompts, 0))
        self._deal_to_passed_over(deal)
        for _, level in groupby(self._lines.items(), key=lambda item: item[0][0]):
            self._deal_level([line for _, line in level], deal)
        return [(seq, num_tokens) for seq, num_tokens in deal.granted.items() if num_tokens]

    def _line_up(self, prompts: AbstractSequence[Sequence]) -> None:
        """Make a line for each bucket, best priority first; a new one owes nobody anything."""
        known, self._lines = self._lines, {}
        first: dict[int, int] = {}
        for line in known.values():
            least = first.get(line.priority, line.served_tokens)
            first[line.priority] = min(least, line.served_tokens)
            line.prompts = []
        for seq in prompts:
            if seq.bucket not in self._lines:
                new = _Line([], seq.priority, first.get(seq.priority, 0))
                self._lines[seq.bucket] = known.get(seq.bucket, new)
            self._lines[seq.bucket].prompts.append(seq)

    def _deal_to_passed_over(self, deal: _Deal) -> None:
        """Deal first to one that lacks nothing any more, whatever its priority."""
        self._lacking = {seq: lacks for seq, lacks in self._lacking.items() if seq in deal.left}
        for seq, lacks in self._lacking.items():
            if lacks <= 0:
                self._deal_to(seq, self._lines[seq.bucket], deal)
                return

    def _deal_level(self, lines: list[_Line], deal: _Deal) -> None:
        """Deal to lines of one priority."""
        while deal.tokens > 0 and (waiting := [line for line in lines if line.prompts]):
            line = min(waiting, key=lambda line: line.served_tokens)
            self._deal_to(line.next(deal.left), line, deal)

    def _deal_to(self, seq: Sequence, line: _Line, deal: _Deal) -> None:
        """Deal a prompt of `line` its next block or run; if that does not fit, the deal ends."""
        granted = deal.granted[seq]
        block = None if granted else seq.next_block
        if block is not None and block in deal.begun:
            line.follow(seq, deal.begun[block])
            return
        start = seq.num_computed + granted
        border = start + self._block_tokens - start % self._block_tokens
        wanted = min(deal.left[seq], seq.next_cut(start, border) - start)
        num_tokens = deal.fitting(seq, wanted)
        if num_tokens > deal.tokens:
            if any(deal.granted.values()):
                self._lacking[seq] = self._lacking.get(seq, num_tokens) - deal.tokens
                deal.tokens = 0
                return
            num_tokens = seq.cut(start + deal.tokens) - start or num_tokens
        if block is not None:
            deal.begun[block] = line
        if num_tokens:
            self._lacking.pop(seq, None)
        deal.grant(seq, num_tokens)
        line.serve(seq, num_tokens, deal.left)
        if num_tokens < wanted:
            line.leave(seq)


def spare_rows_of(seq: Sequence, num_tokens: int) -> int:
    """Return how many rows of logits the next `num_tokens` tokens take beyond a prompt's own."""
    if not seq.has_scores_to_come:
        return 0
    num_rows = len(seq.to_score(num_tokens)) + (num_tokens == seq.num_left)
    return max(num_rows - 1, 0)
