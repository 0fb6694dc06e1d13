"""A bound on the bodies of all requests that are held at a time, on any ASGI server.

What a body has is held in several forms (JSON, decoded, encoded anew) until its request is
answered: a stream may have to be continued elsewhere. So a large body has to have its place before
it is read, and keeps it to the end of the answer. Until then it stays in the socket, and its sender
waits. Small bodies always have one. Who has a place and sends too slowly loses it.

    app = HeldBodies(app, limit_bytes=512 * MIB, max_body_bytes=32 * MIB, wait_s=30.0)
"""

import asyncio
from typing import Final

from cortex_core.asgi import App, Message, Receive, Scope, Send, body_bytes
from cortex_core.byte_budget import RETRY_AFTER_S, ByteBudget, Share
from cortex_core.errors import Overloaded, RequestTooSlow
from cortex_core.sizes import MIB

SMALL_BYTES: Final = MIB
"""Bodies up to this are not counted."""
MAX_WAITING: Final = 64
SENT_S: Final = 60.0
"""Within this a body has to come, and a second for each `SENT_BYTES_PER_S`."""
SENT_BYTES_PER_S: Final = 100_000


class HeldBodies:
    """Wraps an ASGI application, which reads a body to its end or not at all.

    Its `receive` raises where a body gets no place, `QueueFull` or `Overloaded`, or loses it,
    `RequestTooSlow`. What is read behind that is not counted, so that it can be thrown away.
    """

    def __init__(self, app: App, *, limit_bytes: int, max_body_bytes: int, wait_s: float) -> None:
        """One body alone has its place also where it is longer than `limit_bytes`.

        Args:
            app: reads bodies.
            limit_bytes: of all bodies that are counted.
            max_body_bytes: what the application takes; it does not hold longer ones.
            wait_s: how long a body waits for its place, in silence: less than a sender takes that
                for the death of this process.
        """
        self._app = app
        self._wait_s = wait_s
        self._max_body_bytes = max_body_bytes
        self._budget = ByteBudget(limit_bytes, MAX_WAITING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(self._budget, receive, body_bytes(scope), self._max_body_bytes, self._wait_s)
        try:
            await self._app(scope, body.receive, send)
        finally:
            body.give_back()


class _Body:
    """One request's body on its way to the application."""

    def __init__(
        self,
        budget: ByteBudget,
        receive: Receive,
        declared_bytes: int | None,
        max_bytes: int,
        wait_s: float,
    ) -> None:
        self._wait_s = wait_s
        self._budget = budget
        self._receive = receive
        # Of one that does not say its length all that it may have is kept for it.
        self._size_bytes = max_bytes if declared_bytes is None else declared_bytes
        self._tells_length = declared_bytes is not None
        self._is_counted = SMALL_BYTES < self._size_bytes <= max_bytes
        self._share: Share | None = None
        self._sent_by: float | None = None
        """On the loop's clock."""
        self._seen_bytes = 0
        self._ended = False

    async def receive(self) -> Message:
        # The first message is fetched by frameworks themselves, before there is a way to answer.
        late = self._seen_bytes > (0 if self._tells_length else SMALL_BYTES)
        if self._is_counted and late and not self._ended:
            self._is_counted = False
            await self._take()
        message = await self._next_message()
        self._seen_bytes += len(message.get("body", b""))
        # Servers differ in whether the last chunk says that it is the last.
        came_whole = self._tells_length and self._seen_bytes >= self._size_bytes
        self._ended = came_whole or not message.get("more_body", False)
        if self._ended and self._share is not None:
            self._budget.shrink(self._share, self._seen_bytes)
        return message

    async def _next_message(self) -> Message:
        if self._ended or self._sent_by is None:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._sent_by):
                return await self._receive()
        except TimeoutError:
            self._sent_by = None
            self.give_back()
            raise RequestTooSlow(
                f"cannot take a body of {self._size_bytes / MIB:.1f} MiB: it came more slowly than "
                f"{SENT_BYTES_PER_S // 1000} kB/s"
            ) from None

    def give_back(self) -> None:
        if self._share is not None:
            self._budget.give_back(self._share)

    async def _take(self) -> None:
        granted = asyncio.Event()
        self._share = self._budget.ask(self._size_bytes, granted.set)
        try:
            async with asyncio.timeout(self._wait_s):
                await granted.wait()
        except TimeoutError:
            self.give_back()
            raise Overloaded(
                f"cannot take a body of {self._size_bytes / MIB:.1f} MiB: for {self._wait_s:.0f} s "
                "those of other requests took all the room; retry later",
                retry_after_s=RETRY_AFTER_S,
            ) from None
        now = asyncio.get_running_loop().time()
        self._sent_by = now + SENT_S + self._size_bytes / SENT_BYTES_PER_S
