"""How many rows a step with drafts may have, at the load there is.

A few rows cost little more than one, everywhere. More may, too: where weights are only read, a step
of 24 rows takes little longer than one of 4. Or each takes its time, and drafts that do not come
true are paid for by everybody. It depends on processor, weights, context and on how many guesses
come true, so it is measured: what a chosen token costs in steps with more than the few rows,
against what it costs in the others that as many sequences decode in.

Times are told, not measured here. While none are known more rows are taken for worth it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

FEW_ROWS: Final = 6
TRIAL_STEPS: Final = 8
NARROW_EVERY: Final = 32
"""Of so many steps with more rows one has few, or what those cost would grow out of date."""
LONGEST_REST: Final = 64
_DECAY: Final = 0.9


@dataclass(slots=True)
class _Cost:
    """Of tokens lately, sums that fade."""

    seconds: float = 0.0
    tokens: float = 0.0

    def add(self, num_tokens: int, seconds: float) -> None:
        self.seconds = _DECAY * self.seconds + seconds
        self.tokens = _DECAY * self.tokens + num_tokens


@dataclass(slots=True)
class _Load:
    """Steps in which a certain number of sequences decodes."""

    narrow: _Cost = field(default_factory=_Cost)
    wide: _Cost = field(default_factory=_Cost)
    num_wide: int = 0
    """Since the last verdict."""
    since_narrow: int = 0
    rest: int = 0
    """Steps that are to be narrow."""
    next_rest: int = 1


class DraftPace:
    """What tokens of one engine cost with few rows and with more. One writer: its scheduler."""

    def __init__(self) -> None:
        self._loads: dict[int, _Load] = {}  # by the number of sequences that decode

    def most_rows(self, num_decodes: int, max_rows: int) -> int:
        """Return how many rows the next step may have, `max_rows` at most, without prompts.

        Asked once for each step.
        """
        load = self._loads.get(num_decodes)
        if load is None or max_rows <= FEW_ROWS:
            return max_rows
        if load.rest:
            load.rest -= 1
            return FEW_ROWS
        return FEW_ROWS if load.since_narrow >= NARROW_EVERY else max_rows

    def took(self, num_decodes: int, num_rows: int, num_tokens: int, seconds: float) -> None:
        """Learn from a step without prompts that gave so many tokens."""
        load = self._loads.setdefault(num_decodes, _Load())
        if num_rows <= max(FEW_ROWS, num_decodes):
            load.since_narrow = 0
            load.narrow.add(num_tokens, seconds)
            return
        load.wide.add(num_tokens, seconds)
        load.since_narrow += 1
        load.num_wide += 1
        if load.num_wide >= TRIAL_STEPS and load.narrow.tokens:
            self._judge(load)

    def _judge(self, load: _Load) -> None:
        load.num_wide = 0
        wide, narrow = load.wide, load.narrow
        if wide.seconds * narrow.tokens <= narrow.seconds * wide.tokens:
            load.next_rest = 1
            return
        load.rest = load.next_rest = min(2 * load.next_rest, LONGEST_REST)
        load.wide = _Cost()
