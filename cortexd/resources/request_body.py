"""Reads a request's body whole, up to a limit."""

from typing import Final

from falcon.asgi import Request

from cortex_core.request_body import read_bounded
from cortex_core.sizes import MIB

MAX_BODY_BYTES: Final = 32 * MIB
"""What the Anthropic API takes; OpenAI's is of the same order."""


async def read_body(request: Request) -> bytes:
    """Return the body.

    Raises:
        CortexError: see `read_bounded`; it has at most `MAX_BODY_BYTES`.
    """
    return await read_bounded(request.stream, request.content_length, MAX_BODY_BYTES)
