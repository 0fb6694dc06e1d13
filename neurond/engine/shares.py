"""Who gets how much of the tokens that a step has for prompts.

A higher priority gets all it can use. Within one, principals get equal shares however many prompts
each has. Of a principal's share one half goes to its oldest prompt, which so arrives however many
short ones come after it, and one half to the one with the fewest tokens left, which so does not
wait for a long one before it; with one prompt, or several alike, that is first come, first served.

Tokens are dealt in whole blocks, as far as the budget has a whole one. Those that see each other
both ways are dealt together, whatever the budget, to who is first. A share that is smaller than
a block is made good in later steps: whoever has had least is next. Prompts that begin alike are not
computed side by side: one is, and the others adopt its blocks in the next step.
"""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass
from itertools import groupby

from neurond.engine.assemble import Chunk
from neurond.engine.prefix_cache import BlockKey
from neurond.engine.sequence import Bucket, Sequence


@dataclass(slots=True)
class _Line:
    """Prompts of one priority and principal."""

    prompts: list[Sequence]
    """Those with tokens left in this step's deal, oldest first."""
    served_tokens: int
    """Since it last had nothing to compute, on a scale that all lines share."""
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
            self.prompts.remove(seq)

    def follow(self, seq: Sequence, line: _Line) -> None:
        """Let one of the prompts have in the next step what one of `line` computes in this one."""
        self.prompts.remove(seq)
        self.served_tokens = max(self.served_tokens, line.served_tokens)

    def _shortest(self, left: dict[Sequence, int]) -> Sequence:
        return min(self.prompts, key=left.__getitem__)


class PromptShares:
    """Deals a step's tokens out, and remembers who has had how many. One writer: its scheduler."""

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._lines: dict[Bucket, _Line] = {}

    def deal(self, prompts: AbstractSequence[Sequence], budget: int) -> list[Chunk]:
        """Return chunks of `prompts`, which stand best rank first, of `budget` tokens at most."""
        left = {seq: seq.num_left for seq in prompts}
        if sum(left.values()) <= budget:
            self._lines.clear()
            return list(left.items())
        self._line_up(prompts)
        granted = dict.fromkeys(prompts, 0)
        begun: dict[BlockKey, _Line] = {}
        for _, level in groupby(self._lines.values(), key=lambda line: line.prompts[0].priority):
            budget = self._deal_level(list(level), budget, left, granted, begun)
        return [(seq, num_tokens) for seq, num_tokens in granted.items() if num_tokens]

    def _line_up(self, prompts: AbstractSequence[Sequence]) -> None:
        """Make a line for each bucket, best priority first; a new one owes nobody anything."""
        known, self._lines = self._lines, {}
        first = min((line.served_tokens for line in known.values()), default=0)
        for seq in prompts:
            line = self._lines.get(seq.bucket)
            if line is None:
                before = known.get(seq.bucket)
                line = _Line([], first) if before is None else before
                line.prompts = []
                self._lines[seq.bucket] = line
            line.prompts.append(seq)

    def _deal_level(
        self,
        lines: list[_Line],
        budget: int,
        left: dict[Sequence, int],
        granted: dict[Sequence, int],
        begun: dict[BlockKey, _Line],
    ) -> int:
        """Deal to lines of one priority; return what they leave."""
        while budget > 0 and (waiting := [line for line in lines if line.prompts]):
            line = min(waiting, key=lambda line: line.served_tokens)
            seq = line.next(left)
            block = None if granted[seq] else seq.next_block
            if block is not None and block in begun:
                line.follow(seq, begun[block])
                continue
            start = seq.num_computed + granted[seq]
            border = start + self._block_tokens - start % self._block_tokens
            num_tokens = min(left[seq], seq.next_cut(start, border) - start)
            if num_tokens > budget:
                if any(granted.values()):
                    return 0
                num_tokens = seq.cut(start + budget) - start or num_tokens
            if block is not None:
                begun[block] = line
            granted[seq] += num_tokens
            budget -= num_tokens
            line.serve(seq, num_tokens, left)
        return budget
