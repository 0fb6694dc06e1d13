"""One keep-alive connection: a protocol that carries one exchange at a time.

Waits never lose state: `head` and `read` return None when nothing came within their time and can
be called again, so that a caller can say something to its own client in between.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from cortex_core.lazy_timer import LazyTimer
from cortexd.http1.answer import Answer
from cortexd.http1.errors import BadAnswer, ConnectionLost
from cortexd.http1.message import ResponseHead

HIGH_WATER_BYTES = 256 * 1024
"""Body bytes that wait for the reader before the socket is no longer read."""
KERNEL_BYTES = 256 * 1024
"""What may wait behind them in the kernel, which would keep 32 MB of an answer that nobody reads:
a node would not notice that a client is slow before it has said all it has to say. Enough for
answers of hundreds of megabytes a second within a site; the kernel doubles it for its own books."""


class Connection(asyncio.Protocol):
    """A connection to one origin. Used by one task at a time, on its loop.

    Attributes:
        idle_since: loop time at which it went back to the pool; None while in use.
    """

    def __init__(self, on_closed: Callable[["Connection"], None]) -> None:
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self._timer = LazyTimer(self._expire)
        self._answer = Answer()
        self._lost: str | None = None
        self._paused = False
        self._on_complete: Callable[[], None] | None = None
        self.idle_since: float | None = None

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return self._lost is not None

    @property
    def reusable(self) -> bool:
        """Whether the answer is whole and the peer keeps the connection open."""
        return self._answer.complete and self._answer.keep_alive and self._lost is None

    def when_complete(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the answer's last byte came or the connection is gone."""
        self._on_complete = callback

    def abort(self) -> None:
        """Close at once, without sending what is still unsent. Idempotent."""
        self._lost = self._lost or "it was aborted"
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def send(self, head: bytes, body: bytes | None) -> None:
        """Begin an exchange. Bytes that the socket does not take yet are kept by the loop."""
        self._answer = Answer()
        if self._lost is None and self._transport is not None:
            self._transport.write(head if body is None else head + body)

    async def head(self, timeout_s: float) -> ResponseHead | None:
        """Return the answer's head, or None if it did not come within `timeout_s`.

        Raises:
            ConnectionLost: the peer went away or sent what is no HTTP.
        """
        while self._answer.head is None:
            self._raise_if_lost()
            if not await self._wait(timeout_s):
                return None
        return self._answer.head

    async def read(self, timeout_s: float) -> bytes | None:
        """Return what came of the body, b"" at its end, None if nothing came in `timeout_s`.

        Raises:
            ConnectionLost: the peer went away before the end of the body.
        """
        while not self._answer.buffered_bytes:
            if self._answer.complete:
                return b""
            self._raise_if_lost()
            if not await self._wait(timeout_s):
                return None
        data = self._answer.take()
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # uvloop's transports are none of asyncio's classes, though they have all of its methods.
        self._transport = cast("asyncio.Transport", transport)
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES
        )

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        try:
            self._answer.feed(data)
        except BadAnswer as error:
            self._lost = self._lost or str(error)
            self.abort()
            return
        if self._answer.complete:
            self._finish()
        elif self._answer.buffered_bytes > HIGH_WATER_BYTES and not self._paused:
            self._pause()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop, once, whoever closed."""
        if exc is None:
            self._answer.peer_closed()
        self._lost = self._lost or (f"it broke off: {exc}" if exc else "it closed the connection")
        self._transport = None
        self._finish()
        self._wake()
        self._on_closed(self)

    def _pause(self) -> None:
        if self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _finish(self) -> None:
        callback, self._on_complete = self._on_complete, None
        if callback is not None:
            callback()

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise ConnectionLost(self._lost, answered=self._answer.begun)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def _wait(self, timeout_s: float) -> "asyncio.Future[bool]":
        """Return what is True once something came, False after `timeout_s` of silence."""
        self._waiter = self._loop.create_future()
        self._timer.start(timeout_s)
        return self._waiter

    def _expire(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(False)
