"""The ASGI callable of an HTTP worker: made before the fork, filled when the loop runs."""

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from cortexd.child_env import ChildEnvironment
from cortexd.drain import Drain
from cortexd.worker_parts import WorkerParts, WorkerSettings

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class WorkerApp:
    """Builds the worker's parts at start-up and counts the requests it is busy with.

    Attributes:
        row: this worker's row of the in-flight table; set after the fork.
        active: requests that are being served.
    """

    def __init__(self, environment: ChildEnvironment, settings: WorkerSettings) -> None:
        self.row = 0
        self.active = 0
        self.drain = Drain()
        self._environment = environment
        self._settings = settings
        self._parts: WorkerParts | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it was accepted: a 403
            return
        assert self._parts is not None
        self.active += 1
        try:
            # Where the client leaves, the server cancels this call, and with it what it awaits.
            await self._parts.app(scope, receive, send)
        finally:
            self.active -= 1

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            parts = WorkerParts(self._environment, self.row, self.drain, self._settings)
        except Exception as error:
            log.exception("worker not started")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        with parts:
            self._parts = parts
            # Whoever connects meanwhile waits in the socket that listens already.
            await parts.until_usable()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
