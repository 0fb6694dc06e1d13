"""A bound on the bodies of all requests that are held at a time, on any ASGI server.

What a body has is held in several forms (JSON, decoded, encoded anew) until its request is
answered: a stream may have to be continued elsewhere. So a large body has to have its place before
it is read, and keeps it to the end of the answer. Until then it stays in the socket, and its sender
waits. Small bodies always have one.

    app = HeldBodies(app, limit_bytes=512 * MIB, max_body_bytes=32 * MIB)
"""

import asyncio
from typing import Final

from cortex_core.asgi import App, Message, Receive, Scope, Send, body_bytes
from cortex_core.byte_budget import RETRY_AFTER_S, ByteBudget, Share
from cortex_core.errors import Overloaded
from cortex_core.neuron_api import MIB

SMALL_BYTES: Final = MIB
"""Bodies up to this are not counted."""
MAX_WAITING: Final = 64
WAIT_S: Final = 30.0


class HeldBodies:
    """Wraps an ASGI application, which reads a body to its end or not at all.

    Its `receive` raises where a body gets no place: `QueueFull`, or `Overloaded` after `WAIT_S`.
    What is read behind that is not counted, so that it can be thrown away.
    """

    def __init__(self, app: App, *, limit_bytes: int, max_body_bytes: int) -> None:
        """One body alone has its place also where it is longer than `limit_bytes`.

        `max_body_bytes` is what the application takes; it does not hold longer ones.
        """
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._budget = ByteBudget(limit_bytes, MAX_WAITING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(self._budget, receive, body_bytes(scope), self._max_body_bytes)
        try:
            await self._app(scope, body.receive, send)
        finally:
            body.give_back()


class _Body:
    """One request's body on its way to the application."""

    def __init__(
        self, budget: ByteBudget, receive: Receive, declared_bytes: int | None, max_bytes: int
    ) -> None:
        self._budget = budget
        self._receive = receive
        # Of one that does not say its length all that it may have is kept for it.
        self._size_bytes = max_bytes if declared_bytes is None else declared_bytes
        self._tells_length = declared_bytes is not None
        self._is_counted = SMALL_BYTES < self._size_bytes <= max_bytes
        self._share: Share | None = None
        self._seen_bytes = 0
        self._ended = False

    async def receive(self) -> Message:
        # The first message is fetched by frameworks themselves, before there is a way to answer.
        late = self._seen_bytes > (0 if self._tells_length else SMALL_BYTES)
        if self._is_counted and late and not self._ended:
            self._is_counted = False
            await self._take()
        message = await self._receive()
        self._seen_bytes += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        return message

    def give_back(self) -> None:
        if self._share is not None:
            self._budget.give_back(self._share)

    async def _take(self) -> None:
        granted = asyncio.Event()
        self._share = self._budget.ask(self._size_bytes, granted.set)
        try:
            async with asyncio.timeout(WAIT_S):
                await granted.wait()
        except TimeoutError:
            self.give_back()
            raise Overloaded(
                f"cannot take a body of {self._size_bytes / MIB:.1f} MiB: for {WAIT_S:.0f} s those "
                "of other requests took all the room; retry later",
                retry_after_s=RETRY_AFTER_S,
            ) from None
