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
    said_at = clock()
    async for event in events:
        chunk = encoder.event(event)
        now = clock()
        if not chunk and now - said_at >= QUIET_S:
            chunk = encoder.event(Ping())
        if chunk:
            said_at = now
            yield chunk
