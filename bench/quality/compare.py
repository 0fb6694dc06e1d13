"""Holds logits against those of the oracle, position by position, and adds up."""

import math
from dataclasses import dataclass
from typing import Final

import torch

PIECE: Final = 32
"""Positions that are compared at once: with a large vocabulary more would not stay in a cache."""


@dataclass
class Comparison:
    """Of all positions so far; every token is predicted from the true ones before it."""

    positions: int = 0
    same: int = 0
    loss: float = 0.0
    oracle_loss: float = 0.0
    divergence: float = 0.0
    error_squares: float = 0.0
    oracle_squares: float = 0.0

    def add(self, logits: torch.Tensor, oracle: torch.Tensor, token_ids: torch.Tensor) -> None:
        """Add a sequence: both logits [T, V], the oracle in float32, and its tokens [T]."""
        for at in range(0, len(token_ids) - 1, PIECE):
            wanted = token_ids[at + 1 : at + 1 + PIECE]
            rows = slice(at, at + len(wanted))
            self._add_piece(logits[rows], oracle[rows], wanted)

    def _add_piece(self, logits: torch.Tensor, oracle: torch.Tensor, wanted: torch.Tensor) -> None:
        """Add positions with the tokens that follow them.

        A constant added to all logits of a position changes no probability and is left out.
        """
        found = logits - logits.mean(-1, keepdim=True)
        expected = oracle - oracle.mean(-1, keepdim=True)
        self.positions += len(wanted)
        self.same += int((found.argmax(-1) == expected.argmax(-1)).sum())
        self.error_squares += float((found - expected).square().mean(-1).sum())
        self.oracle_squares += float(expected.square().mean(-1).sum())
        ours, theirs = found.log_softmax(-1), expected.log_softmax(-1)
        self.loss -= float(ours.gather(1, wanted[:, None]).sum())
        self.oracle_loss -= float(theirs.gather(1, wanted[:, None]).sum())
        self.divergence += float((theirs.exp() * (theirs - ours)).sum())

    @property
    def same_share(self) -> float:
        """Positions whose likeliest token is the oracle's."""
        return self.same / self.positions

    @property
    def oracle_perplexity(self) -> float:
        return math.exp(self.oracle_loss / self.positions)

    @property
    def perplexity_ratio(self) -> float:
        """Perplexity by that of the oracle."""
        return math.exp((self.loss - self.oracle_loss) / self.positions)

    @property
    def mean_divergence(self) -> float:
        """Kullback-Leibler, of the oracle's distribution from this one, in nats a token."""
        return self.divergence / self.positions

    @property
    def logit_error(self) -> float:
        """Root mean square of the difference by that of the oracle's logits."""
        return math.sqrt(self.error_squares / self.oracle_squares)
