"""How long responses are kept, and which go when room is short. Pure; `now` is given."""

from collections.abc import Iterable

import msgspec


class Held(msgspec.Struct, frozen=True):
    """A response that is kept, as far as retention looks at it."""

    id: str
    size_bytes: int


class Retention:
    """Decides over the store of one gateway.

    A response is used when it is made, and when one that goes on from it is made. It lasts for
    `ttl_s` after its last use, so a conversation lasts as a whole.
    """

    def __init__(self, *, ttl_s: float, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._ttl_s = ttl_s

    def keeps(self, size_bytes: int) -> bool:
        """Say whether a new response of that size is kept at all."""
        return size_bytes <= self.max_bytes

    def unused_since(self, now: float) -> float:
        """Return the time of last use at or before which a response is gone."""
        return now - self._ttl_s

    def surplus(self, total_bytes: int, longest_unused: Iterable[Held]) -> list[str]:
        """Return the responses to drop, so that what is left has at most `max_bytes`.

        `total_bytes` is what all have together; `longest_unused` gives them in that order.
        """
        dropped: list[str] = []
        for held in longest_unused:
            if total_bytes <= self.max_bytes:
                break
            dropped.append(held.id)
            total_bytes -= held.size_bytes
        return dropped
