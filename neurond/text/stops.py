"""Finding stop strings in text that comes in pieces. Pure."""

from collections.abc import Sequence
from typing import NamedTuple


class StopResult(NamedTuple):
    """What a piece of text led to. `text` is certain not to be part of a stop string."""

    text: str
    stop: str | None = None


class StopMatcher:
    """Withholds text that may begin a stop string, and cuts the text where one is complete.

    The stop string that is complete first wins, of several that end at the same place the longest;
    so the result does not depend on how the text was cut into pieces. Each character is looked at
    once per stop string (Knuth, Morris and Pratt).
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [(stop, _failure_table(stop)) for stop in stops if stop]
        self._matched = [0] * len(self._stops)
        self._held = ""

    @property
    def held(self) -> str:
        """Text that was taken in and not given out."""
        return self._held

    def push(self, text: str) -> StopResult:
        """Take more text. After a result with `stop` the matcher is used up."""
        if not self._stops:
            return StopResult(text)
        for place, character in enumerate(text):
            fired = self._step(character)
            if fired is not None:
                seen = self._held + text[: place + 1]
                self._held = ""
                return StopResult(seen[: len(seen) - len(fired)], fired)
        seen = self._held + text
        keep = max(self._matched)
        cut = len(seen) - keep
        self._held = seen[cut:]
        return StopResult(seen[:cut])

    def flush(self) -> str:
        """Return the withheld text: the choice ended otherwise."""
        held, self._held = self._held, ""
        self._matched = [0] * len(self._stops)
        return held

    def _step(self, character: str) -> str | None:
        fired: str | None = None
        for number, (stop, failure) in enumerate(self._stops):
            matched = self._matched[number]
            while matched and stop[matched] != character:
                matched = failure[matched - 1]
            if stop[matched] == character:
                matched += 1
            if matched == len(stop):
                matched = 0
                if fired is None or len(stop) > len(fired):
                    fired = stop
            self._matched[number] = matched
        return fired


def _failure_table(stop: str) -> list[int]:
    """Return, for each prefix, the length of its longest proper prefix that is also its suffix."""
    table = [0] * len(stop)
    length = 0
    for place in range(1, len(stop)):
        while length and stop[place] != stop[length]:
            length = table[length - 1]
        if stop[place] == stop[length]:
            length += 1
        table[place] = length
    return table
