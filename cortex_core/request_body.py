"""Reads a request's body whole, up to a limit, on any ASGI framework with streams of bytes.

A client that is still sending when its connection is closed sees that, not the answer. So what is
refused is read away before it is answered, within bounds.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from typing import Final, Protocol

from cortex_core.errors import CortexError, RequestTooLarge, RequestTooSlow

READ_AWAY_S: Final = 30.0


class BodyStream(Protocol):
    """What is still to come of a body."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def read(self, size: int, /) -> bytes:
        """Return so many bytes, or all where there are fewer."""


async def read_bounded(stream: BodyStream, announced_bytes: int | None, max_bytes: int) -> bytes:
    """Return the body: what came of it, where the client left before its end.

    Of one that is refused up to twice `max_bytes` are read away.

    Raises:
        RequestTooLarge: it has more than `max_bytes`.
        QueueFull, Overloaded, RequestTooSlow: it has no place, or lost it; see
            `cortex_core.held_bodies`.
    """
    discard_bytes = 2 * max_bytes
    if announced_bytes is not None and announced_bytes > max_bytes:
        if announced_bytes <= discard_bytes:
            await read_away(stream, discard_bytes)
        raise _too_large(f"{announced_bytes} bytes", max_bytes)
    try:
        data = await stream.read(max_bytes + 1)
    except RequestTooSlow:
        raise  # who is too slow for that is for the rest as well
    except CortexError:
        await read_away(stream, discard_bytes)
        raise
    if len(data) > max_bytes:
        del data
        await read_away(stream, discard_bytes)
        raise _too_large("more", max_bytes)
    return data


async def read_away(chunks: AsyncIterable[bytes], at_most_bytes: int) -> None:
    """Read what is left of a refused body, so that its sender gets to read why.

    Ends after `READ_AWAY_S` and after so many bytes, whatever is left.
    """
    left = at_most_bytes
    with suppress(TimeoutError):
        async with asyncio.timeout(READ_AWAY_S):
            async for chunk in chunks:
                left -= len(chunk)
                if left <= 0:
                    return


def _too_large(size: str, max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"cannot read the request body: it has {size}, the limit is {max_bytes} bytes"
    )
