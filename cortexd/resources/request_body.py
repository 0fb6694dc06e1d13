"""Reads a request's body whole, up to a limit."""

from typing import Final

from falcon.asgi import Request

from cortex_core.asgi import read_away
from cortex_core.errors import CortexError, RequestTooLarge, RequestTooSlow

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""What the Anthropic API takes; OpenAI's is of the same order."""
_DISCARD_BYTES: Final = 2 * MAX_BODY_BYTES
"""How much of a body that is too long is read away, so that its sender gets to read the answer."""


async def read_body(request: Request) -> bytes:
    """Return the body.

    Raises:
        RequestTooLarge: it has more than `MAX_BODY_BYTES`.
        QueueFull, Overloaded, RequestTooSlow: it has no place, or lost it; see
            `cortex_core.held_bodies`.
    """
    announced = request.content_length
    if announced is not None and announced > MAX_BODY_BYTES:
        if announced <= _DISCARD_BYTES:
            await _discard(request)
        raise _too_large(f"{announced} bytes")
    try:
        data: bytes = await request.stream.read(MAX_BODY_BYTES + 1)
    except RequestTooSlow:
        raise  # who is too slow for that is for the rest as well
    except CortexError:
        await _discard(request)
        raise
    if len(data) > MAX_BODY_BYTES:
        await _discard(request)
        raise _too_large("more")
    return data


async def _discard(request: Request) -> None:
    await read_away(request.stream, _DISCARD_BYTES)


def _too_large(size: str) -> RequestTooLarge:
    return RequestTooLarge(
        f"cannot read the request body: it has {size}, the limit is {MAX_BODY_BYTES} bytes"
    )
