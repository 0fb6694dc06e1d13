"""The HTTP server inside the daemon: uvicorn on the daemon's own loop and socket."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn

from cortex_core.asgi import App
from neurond.listening import BACKLOG

KEEP_ALIVE_S: Final = 75
"""Longer than gateways keep idle connections, so that the node does not close one under them."""
CLOSE_GRACE_S: Final = 5
"""For connections that are still open once every stream has ended."""


class HttpServer:
    """Serves one application until `close`. Signals are the daemon's business."""

    def __init__(self, app: App, bound: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            loop="none",
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
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._bound.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
