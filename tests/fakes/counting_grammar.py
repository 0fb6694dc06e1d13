"""A grammar without a form."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from tests.fakes.fake_runner import VOCAB_SIZE


class Countdown:
    """A grammar of so many tokens, whichever they are; takes note of them and of its forks."""

    holds_end = True

    def __init__(
        self, num_tokens: int, taken: Sequence[int] = (), *, vocab_size: int = VOCAB_SIZE
    ) -> None:
        self.taken = list(taken)
        self.forks: list[Countdown] = []
        self._num_tokens = num_tokens
        self._vocab_size = vocab_size

    @property
    def is_complete(self) -> bool:
        return len(self.taken) >= self._num_tokens

    def fork(self) -> Countdown:
        self.forks.append(Countdown(self._num_tokens, self.taken, vocab_size=self._vocab_size))
        return self.forks[-1]

    def advance(self, token_id: int) -> bool:
        self.taken.append(token_id)
        return self.is_complete

    def fitting(self, token_ids: Sequence[int]) -> int:
        return min(len(token_ids), self._num_tokens - len(self.taken) - 1)

    def forced(self) -> Sequence[int]:
        return ()

    def allowed(self) -> array[int]:
        bits = (1 << self._vocab_size) - 1
        return array("I", [bits & 2**32 - 1, bits >> 32])
