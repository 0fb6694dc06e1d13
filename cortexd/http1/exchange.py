"""One request and its answer, on a kept-alive connection where there is one."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from cortexd.http1.connection import Connection
from cortexd.http1.errors import ConnectionLost
from cortexd.http1.message import Origin, ResponseHead, encode_request
from cortexd.http1.pool import ConnectionPool


class Exchange:
    """Owns a connection from the first wait to `close`, which is always to be called.

    `head` and `read` return None when nothing came within their time; call them again. A
    kept-alive connection that turns out to be closed before any byte of the answer is replaced by
    a new one, once, and the request is sent again.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        origin: Origin,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str],
    ) -> None:
        self._pool = pool
        self._origin = origin
        self._head_bytes = encode_request(origin, method, target, body, headers)
        self._body = body
        self._connecting: asyncio.Task[Connection] | None = None
        self._connection = pool.take_idle(origin)
        self._kept_alive = self._connection is not None
        self._ended = False
        if self._connection is not None:
            self._connection.send(self._head_bytes, body)

    async def head(self, timeout_s: float) -> ResponseHead | None:
        """Return the answer's head, or None if it did not come within `timeout_s`.

        Raises:
            ConnectFailed: the host cannot be reached.
            TooManyConnections: the pool is exhausted.
            ConnectionLost: the peer went away before it answered.
        """
        if self._connection is None and not await self._connected(timeout_s):
            return None
        assert self._connection is not None
        try:
            return await self._connection.head(timeout_s)
        except ConnectionLost as error:
            if error.answered or not self._kept_alive:
                raise
        self._pool.release(self._connection, ended=False)
        self._connection, self._kept_alive = None, False
        return await self.head(timeout_s)

    def read(self, timeout_s: float) -> Coroutine[Any, Any, bytes | None]:
        """Return what came of the body, b"" at its end, None if nothing came in `timeout_s`.

        Raises:
            ConnectionLost: the peer went away before the end of the body.
        """
        assert self._connection is not None
        return self._connection.read(timeout_s)

    def mark_ended(self) -> None:
        """Say that the answer is whole in the caller's terms, so that closing need not abort."""
        self._ended = True

    def close(self) -> None:
        """Give the connection back, or abort it if the answer is not whole. Idempotent."""
        if self._connecting is not None:
            self._connecting.add_done_callback(self._drop_late)
            self._connecting.cancel()
            self._connecting = None
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._pool.release(connection, ended=self._ended)

    async def _connected(self, timeout_s: float) -> bool:
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._pool.connect(self._origin))
        await asyncio.wait({self._connecting}, timeout=timeout_s)
        if not self._connecting.done():
            return False
        connecting, self._connecting = self._connecting, None
        self._connection = connecting.result()
        self._connection.send(self._head_bytes, self._body)
        return True

    def _drop_late(self, connecting: "asyncio.Task[Connection]") -> None:
        if not connecting.cancelled() and connecting.exception() is None:
            self._pool.release(connecting.result(), ended=False)
