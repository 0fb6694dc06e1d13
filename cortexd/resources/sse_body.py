"""The body of a streamed answer: canonical events as one dialect's server-sent events."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final

from cortex_core.canonical import Event, Failed, Loading, Ping
from cortex_core.dialects.base import ResponseEncoder
from cortex_core.dialects.sse import comment
from cortex_core.errors import CortexError, InternalError
from cortex_core.logs import kv
from cortex_core.sse_stream import SseChunks

log = logging.getLogger(__name__)

COMMIT_AFTER_S: Final = 0.4
"""How long the status line is held back, so that an early error still gets a status of its own.

Signs of life come at most half a second later, so a client waits less than a second for bytes.
"""
_OPENING: Final = comment("ok")


async def first_of(events: AsyncIterator[Event], clock: Callable[[], float]) -> Event:
    """Return the event that decides the status line: `Failed` before anything else is an error.

    Signs of life are left out for `COMMIT_AFTER_S`; after that one of them is returned, which
    means 200.
    """
    commit_at = clock() + COMMIT_AFTER_S
    async for event in events:
        if isinstance(event, Ping | Loading) and clock() < commit_at:
            continue
        return event
    raise CortexError("cannot answer: the stream of events was empty")


class SseBody:
    """Goes into `Response.stream`. Falcon iterates it and calls `close`, however that ends."""

    def __init__(
        self,
        first: Event,
        events: AsyncGenerator[Event, None],
        encoder: ResponseEncoder,
        clock: Callable[[], float],
    ) -> None:
        self._events = events
        self._encoder = encoder
        self._clock = clock
        self._chunks = self._encoded(first)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def __anext__(self) -> bytes:
        return await anext(self._chunks)

    async def close(self) -> None:
        """Stop the events, which aborts what is upstream of them. Idempotent."""
        await self._chunks.aclose()
        await self._events.aclose()

    async def _encoded(self, first: Event) -> AsyncGenerator[bytes, None]:
        try:
            # The server keeps the headers back until the first byte of the body.
            yield self._encoder.event(first) or _OPENING
            chunks = SseChunks(self._encoder, self._clock)
            async for event in self._events:
                if chunk := chunks.of(event):
                    yield chunk
        except CortexError as error:
            log.error("stream not encoded", extra=kv(cause=error.message))
            yield self._encoder.event(Failed(error.info()))
        except Exception as error:
            log.exception("stream not encoded")
            failed = InternalError(f"cannot go on: {type(error).__name__}: {error}")
            yield self._encoder.event(Failed(failed.info()))
