"""Which tokens of a choice are visible: those of which a character came through as text. Pure."""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from neurond.stream_items import Token


class _Seen(NamedTuple):
    token: Token
    sent_chars: int
    """How much of the visible text has to be sent before the token's first character is."""


class _Unseen(NamedTuple):
    token: Token
    start: int
    end: int


class VisibleTokens:
    """Holds tokens until their text is sent, and drops those that turn out not to be visible.

    Places are counted in characters of the whole text, thoughts and calls included.
    """

    def __init__(self) -> None:
        self._seen: deque[_Seen] = deque()
        self._unseen: deque[_Unseen] = deque()
        self._seen_chars = 0

    @property
    def is_unsure(self) -> bool:
        """Whether there are tokens that may be visible or not."""
        return bool(self._unseen)

    def add(self, token: Token, start: int, end: int) -> None:
        """Take a token whose text is from `start` to `end`."""
        self._unseen.append(_Unseen(token, start, end))

    def show(self, places: Sequence[int]) -> None:
        """What stands at these places, in order, is visible text."""
        while self._unseen:
            token, start, end = self._unseen[0]
            first = bisect_left(places, start)
            if first == len(places):
                break
            self._unseen.popleft()
            if places[first] < end:
                self._seen.append(_Seen(token, self._seen_chars + first + 1))
        self._seen_chars += len(places)

    def decide(self, end: int, *, in_prose: bool) -> None:
        """What stands before `end` and was not shown is not visible.

        Args:
            in_prose: the text ends in what is visible, so that tokens without text are, too.
        """
        while self._unseen and self._unseen[0].end <= end:
            token, start, past = self._unseen.popleft()
            if in_prose and start == past:
                self._seen.append(_Seen(token, self._seen_chars))

    def take(self, sent_chars: int) -> list[Token]:
        """Return the tokens that are visible in so much of the visible text; each once."""
        taken: list[Token] = []
        while self._seen and self._seen[0].sent_chars <= sent_chars:
            taken.append(self._seen.popleft().token)
        return taken
