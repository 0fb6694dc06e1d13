"""Which tokens the rows of a step may take, where a grammar says so.

Found between the forward pass and the choice of tokens, so that a device computes meanwhile.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from cortex_core.errors import CortexError, ErrorInfo
from neurond.engine.batch import Row, SampledToken


@dataclass(slots=True)
class Masks:
    """The masks of a step's rows. They belong to the grammars, and are theirs again after it."""

    allowed: list[array[int] | None]
    """For each row a bit per token in 32-bit words, lowest first; None allows all."""
    failed: dict[int, ErrorInfo] = field(default_factory=dict)
    """Rows whose grammar cannot go on."""

    def settle(self, sampled: list[SampledToken | ErrorInfo]) -> list[SampledToken | ErrorInfo]:
        """Return what was sampled, with errors for the rows that failed."""
        for index, error in self.failed.items():
            sampled[index] = error
        return sampled


NO_MASKS = Masks([])
"""Of rows that all may take any token."""


def masks_of(rows: Sequence[Row]) -> Masks:
    """Ask the grammars of `rows`; `NO_MASKS` where none has a say."""
    masks: Masks | None = None
    for index, row in enumerate(rows):
        if row.grammar is None:
            continue
        try:
            allowed, error = row.grammar.allowed(), None
        except CortexError as ex:
            allowed, error = None, ex.info()
        if allowed is None and error is None:
            continue
        masks = masks or Masks([None] * len(rows))
        masks.allowed[index] = allowed
        if error is not None:
            masks.failed[index] = error
    return masks or NO_MASKS
