"""A streamed answer in one dialect that never falls silent while canonical events come."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final

from cortex_core.canonical import Event, Ping
from cortex_core.dialects.base import ResponseEncoder

QUIET_S: Final = 0.4
"""Events come at most half a second apart, so a client waits less than a second for bytes."""


async def sse_chunks(
    events: AsyncIterator[Event], encoder: ResponseEncoder, *, clock: Callable[[], float]
) -> AsyncGenerator[bytes, None]:
    """Yield what `encoder` makes of `events`, which stay the caller's to close.

    A dialect has no bytes for some events, above all tokens whose text is withheld because a stop
    string may have begun. The first of them after `QUIET_S` without bytes becomes a sign of life.

    Raises:
        ProtocolError: the events do not come in their order.
    """
    chunks = SseChunks(encoder, clock)
    async for event in events:
        chunk = chunks.of(event)
        if chunk:
            yield chunk


class SseChunks:
    """The chunks of one answer, event by event: what `sse_chunks` yields, and nothing for others.

    Begins with the first silence.
    """

    def __init__(self, encoder: ResponseEncoder, clock: Callable[[], float]) -> None:
        self._encoder = encoder
        self._clock = clock
        self._said_at = clock()

    def of(self, event: Event) -> bytes:
        """Return the bytes for `event`, b"" where there are none.

        Raises:
            ProtocolError: the events do not come in their order.
        """
        chunk = self._encoder.event(event)
        now = self._clock()
        if not chunk and now - self._said_at >= QUIET_S:
            chunk = self._encoder.event(Ping())
        if chunk:
            self._said_at = now
        return chunk
