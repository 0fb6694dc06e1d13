"""A grammar that holds parts of an answer: from a token that triggers it up to its own end.

In between the answer is as free as one without a grammar: no mask is made, guesses are drafted.
What is held depends on the tokens of the answer alone, so a stream that goes on elsewhere is in the
same state there; but for a part of which a mask took too long.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cortex_core.errors import InvalidRequest
from neurond.engine.triggers import TriggerWatch

if TYPE_CHECKING:
    from neurond.engine.grammar import TokenGrammar


class TriggeredGrammar:
    """What one sequence may say next, where parts of it are held.

    Where the grammar fails in the middle of a part, the rest of that part is free.
    """

    def __init__(
        self, part: TokenGrammar, watch: TriggerWatch, held: TokenGrammar | None = None
    ) -> None:
        """Nothing was taken yet, or what `watch` and `held` have.

        Args:
            part: as it begins.
            watch: knows what triggers it; this object's own.
            held: a part that was begun; this object's own.
        """
        self._part = part
        self._watch = watch
        self._held = held

    is_complete = False
    """The answer goes on behind each part."""
    holds_end = False
    """The answer ends where it would have without a grammar."""

    def fork(self) -> TriggeredGrammar:
        """Return one in the same state for another sequence."""
        held = self._held.fork() if self._held is not None else None
        return TriggeredGrammar(self._part, self._watch.fork(), held)

    def advance(self, token_id: int) -> bool:
        """Take the sequence's next token; the answer is not complete with it."""
        if self._held is not None:
            is_whole = self._held.advance(token_id)
            is_taken = not self._held.has_failed
            if is_whole or not is_taken:
                self._held = None
            if is_taken:
                return False
        if self._watch.takes(token_id):
            self._held = self._part.fork()
        return False

    def fitting(self, token_ids: Sequence[int]) -> int:
        """See `Grammar.fitting`."""
        if self._held is not None:
            return self._held.fitting(token_ids)
        watch = self._watch.fork()
        for count, token_id in enumerate(token_ids, start=1):
            if watch.takes(token_id):
                return count + self._part.fitting(token_ids[count:])
        return len(token_ids)

    def forced(self) -> Sequence[int]:
        """See `Grammar.forced`."""
        return self._held.forced() if self._held is not None else ()

    def allowed(self) -> array[int] | None:
        """Return a bit for each token that may come next; None where any may."""
        if self._held is None:
            return None
        try:
            return self._held.allowed()
        except InvalidRequest:
            self._held = None
            return None
