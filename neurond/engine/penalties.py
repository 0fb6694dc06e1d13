"""Logit bias and penalties, added to the few logits that they concern.

A repetition penalty divides positive and multiplies negative logits (CTRL, arXiv:1909.05858);
whatever is added is added behind it. `neurond.engine.row_rules` says to which tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from neurond.engine.batch import Row
from neurond.engine.row_rules import repeated_tokens, summands_of
from neurond.engine.upload import upload


@dataclass(slots=True)
class _Entries:
    """Values for places in flattened logits."""

    places: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, row: int, vocab_size: int, pairs: Iterable[tuple[int, float]]) -> None:
        """Collect (token id, value) pairs; ids that are no tokens have no logit to change."""
        for token, value in pairs:
            if 0 <= token < vocab_size:
                self.places.append(row * vocab_size + token)
                self.values.append(value)

    def on(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return places (int64) and values on the device of `like`, without waiting for it."""
        return (
            upload(self.places, torch.int64, like.device),
            upload(self.values, torch.float32, like.device),
        )


def adjust(logits: torch.Tensor, rows: Sequence[Row], *, keep: bool) -> torch.Tensor:
    """Return float32 `logits` [S, V] with what the rows ask for; in place unless `keep`."""
    divisors, summands = _collect(rows, logits.shape[-1])
    if not divisors.places and not summands.places:
        return logits
    if keep:
        logits = logits.clone()
    flat = logits.view(-1)
    if divisors.places:
        places, penalties = divisors.on(logits)
        found = flat[places]
        flat[places] = torch.where(found > 0, found / penalties, found * penalties)
    if summands.places:
        places, values = summands.on(logits)
        flat.index_add_(0, places, values)
    return logits


def _collect(rows: Sequence[Row], vocab_size: int) -> tuple[_Entries, _Entries]:
    divisors, summands = _Entries(), _Entries()
    for index, row in enumerate(rows):
        penalty = row.sampling.repetition_penalty or 1.0
        divisors.add(index, vocab_size, ((token, penalty) for token in repeated_tokens(row)))
        tokens, values = summands_of(row)
        summands.add(index, vocab_size, zip(tokens, values, strict=True))
    return divisors, summands
