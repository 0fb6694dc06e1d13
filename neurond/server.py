"""The HTTP server inside the daemon: uvicorn on the daemon's own loop and socket."""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn

from cortex_core.asgi import App
from cortex_core.config.address import Address
from cortex_core.errors import ConfigError

BACKLOG: Final = 2048
KEEP_ALIVE_S: Final = 75
"""Longer than gateways keep idle connections, so that the node does not close one under them."""
CLOSE_GRACE_S: Final = 5
"""For connections that are still open once every stream has ended."""


def listen(address: Address) -> socket.socket:
    """Return a socket that is bound to `address`.

    Raises:
        ConfigError: the port is in use, or the host has no such address.
    """
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, proto)
    except OSError as ex:
        raise ConfigError(f"cannot listen on {address}: {ex}", param="listen") from ex
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
        bound.listen(BACKLOG)
    except OSError as ex:
        bound.close()
        hint = ""
        if ex.errno == errno.EADDRINUSE:
            hint = "; another process uses the port: stop it, or set `port` to another one"
        raise ConfigError(f"cannot listen on {address}: {ex.strerror}{hint}", param="port") from ex
    bound.setblocking(False)
    return bound


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
