"""Makes a client's disconnect known at once, on any ASGI server.

A server only tells through `receive`, after the body; what is sent to a client that is gone is
silently dropped. So one task for each request waits there, and everybody else waits for an event:

    app = DisconnectMiddleware(falcon_app)
    resp.stream = until_disconnected(chunks, req.scope[DISCONNECTED])

The node needs it on uvicorn. The gateway does not: gunicorn is told to cancel a request's task.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Generic, TypeVar

from cortex_core.logs import kv

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
T = TypeVar("T")

DISCONNECTED = "cortex.disconnected"
"""Key in the scope of an `asyncio.Event` that is set once the client is gone."""

_log = logging.getLogger(__name__)


class DisconnectMiddleware:
    """Wraps an ASGI application; puts `DISCONNECTED` into the scope of HTTP requests.

    The wait begins when the application has read the whole body, or at once for a request that
    has none. After that `receive` gives `http.disconnect`, as servers do.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        watch = _Watch(scope, receive)
        try:
            await self._app({**scope, DISCONNECTED: watch.disconnected}, watch.receive, send)
        finally:
            watch.stop()


class _Watch:
    """Reads one request's messages: the body for the application, the rest for the event."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.disconnected = asyncio.Event()
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._unread_bytes = body_bytes(scope)
        # The application still gets the empty body that it may ask for.
        self._owes_empty_body = self._unread_bytes == 0
        if self._owes_empty_body:
            self._begin()

    async def receive(self) -> Message:
        if self._owes_empty_body:
            self._owes_empty_body = False
            return {"type": "http.request", "body": b"", "more_body": False}
        if self._task is not None:
            await self.disconnected.wait()
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.disconnected.set()
        elif self._ends_body(message):
            self._begin()
        return message

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ends_body(self, message: Message) -> bool:
        if self._unread_bytes is not None:
            # An application that counts does not ask for the empty message after the last byte.
            self._unread_bytes -= len(message.get("body", b""))
            if self._unread_bytes <= 0:
                message["more_body"] = False
        return not message.get("more_body", False)

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        except Exception as ex:  # noqa: BLE001 - a connection that cannot be read is gone
            _log.debug("reading from the client failed", extra=kv(cause=ex))
        self.disconnected.set()


def body_bytes(scope: Scope) -> int | None:
    """Return how long an HTTP request's body is, or None when only its end will tell."""
    headers = {name.lower(): value for name, value in scope["headers"]}
    if b"transfer-encoding" in headers:
        return None
    length = headers.get(b"content-length")
    if length is None:
        return 0 if scope.get("http_version", "1.1").startswith("1") else None
    return int(length) if length.isdigit() else None


def until_disconnected(
    source: AsyncIterator[T], disconnected: asyncio.Event
) -> "DisconnectGuard[T]":
    """Return `source` as a stream that ends as soon as `disconnected` is set.

    Then, as on every other end, `source` has been closed: at once, also while it awaits
    something, which sees a cancellation. The stream ends without an error.
    """
    return DisconnectGuard(source, disconnected)


class DisconnectGuard(Generic[T]):
    """What `until_disconnected` returns; iterate it in one task at a time."""

    def __init__(self, source: AsyncIterator[T], disconnected: asyncio.Event) -> None:
        self._source = source
        self._disconnected = disconnected
        self._watch: asyncio.Task[bool] | None = None
        self._reader: asyncio.Task[Any] | None = None
        self._interrupted = False
        self._closed = False

    def __aiter__(self) -> "DisconnectGuard[T]":
        return self

    async def __anext__(self) -> T:
        if self._closed or self._disconnected.is_set():
            await self.aclose()
            raise StopAsyncIteration
        if self._watch is None:
            self._watch = asyncio.create_task(self._disconnected.wait())
            self._watch.add_done_callback(self._interrupt)
        reader = asyncio.current_task()
        assert reader is not None
        cancelled_before = reader.cancelling()
        self._reader = reader
        try:
            item = await anext(self._source)
        except BaseException as ex:
            ours = self._take_back(reader, cancelled_before)
            await self.aclose()
            if ours and isinstance(ex, asyncio.CancelledError):
                raise StopAsyncIteration from None
            raise
        # A source may swallow the cancellation and still give an item; the next call ends it.
        self._take_back(reader, cancelled_before)
        return item

    async def aclose(self) -> None:
        """Close the source and stop watching. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()

    async def close(self) -> None:
        """Do as `aclose`, under the name by which Falcon ends a response's stream."""
        await self.aclose()

    def _take_back(self, reader: "asyncio.Task[Any]", cancelled_before: int) -> bool:
        """Undo our cancellation of `reader`, if there was one; True if it was the only one."""
        self._reader = None
        return self._interrupted and reader.uncancel() <= cancelled_before

    def _interrupt(self, watch: "asyncio.Task[bool]") -> None:
        if self._reader is not None and not watch.cancelled():
            self._interrupted = True
            self._reader.cancel()
