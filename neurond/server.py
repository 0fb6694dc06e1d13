"""The HTTP server inside the daemon: uvicorn on the daemon's own loop and socket."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Final

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from cortex_core.asgi import App
from cortex_core.errors import RequestTooLarge
from cortex_core.stall_watch import NODE_STALLED_S, StallWatched
from neurond.listening import BACKLOG

KEEP_ALIVE_S: Final = 75
"""Longer than gateways keep idle connections, so that the node does not close one under them."""
CLOSE_GRACE_S: Final = 5
"""For connections that are still open once every stream has ended."""
TICK_S: Final = 1.0
MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a request's head, or of its trailers; what one read of a socket brings may be more."""
HEAD_TOO_LARGE: Final = 431


class HttpServer:
    """Serves one application until `close`. Signals are the daemon's business."""

    def __init__(self, app: App, bound: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            loop="none",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=CLOSE_GRACE_S,
        )
        self._bound = bound
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    def start(self) -> None:
        """Begin to accept."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._bound]))

    async def close(self) -> None:
        """Accept nothing more, end idle connections, and wait a bounded time for the others."""
        self._server.leave()
        if self._task is not None:
            await self._task
        self._bound.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._leaving = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def leave(self) -> None:
        """End `serve`."""
        self.should_exit = True
        self._leaving.set()

    async def main_loop(self) -> None:
        """Tick as often as the date in the headers changes; uvicorn does ten times as often."""
        while not await self.on_tick(0):
            # uvicorn closes in many places, and tells of few.
            for connection in self.server_state.connections:
                if isinstance(connection, BoundedProtocol):
                    connection.watch_close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._leaving.wait()


class BoundedProtocol(StallWatched, HttpToolsProtocol):
    """Refuses a head that does not end: the parser holds all of it, without a bound of its own.

    Cuts off a client that does not read, which is told to the application as if it had left:
    uvicorn itself waits for it without a bound, and keeps what is left of an answer that has ended.
    """

    stalled_s = NODE_STALLED_S

    _held_bytes = 0
    """What came since the parser last had something to hand on."""

    def watch_close(self) -> None:
        """Have a connection that is closing wait for its last bytes no longer than for others."""
        if self.transport.is_closing():
            self._stall_watch.begin(self.transport)

    def data_received(self, data: bytes) -> None:
        self._held_bytes += len(data)
        super().data_received(data)
        if self._held_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse_head()

    def on_headers_complete(self) -> None:
        self._held_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._held_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._held_bytes = 0
        super().on_message_complete()

    def _refuse_head(self) -> None:
        # Before the first request there is none, whatever uvicorn's annotation says.
        cycle: RequestResponseCycle | None = getattr(self, "cycle", None)
        if cycle is None or cycle.response_complete:
            error = RequestTooLarge(
                f"cannot read the request: its headers have more than {MAX_HEAD_BYTES} bytes"
            )
            body = msgspec.json.encode({"error": error.info()})
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: "
            status = STATUS_LINE[HEAD_TOO_LARGE]
            self.transport.write(status + head + b"%d\r\n\r\n" % len(body) + body)
        self.transport.close()
