"""Keep-alive connections, pooled by origin. One pool per event loop."""

import asyncio
import collections
import ssl

import msgspec

from cortexd.http1.connection import Connection
from cortexd.http1.errors import ConnectFailed, TooManyConnections
from cortexd.http1.message import Origin

LINGER_S = 1.0
"""How long a connection whose last event was read may take to end its answer properly."""


class PoolLimits(msgspec.Struct, frozen=True):
    """Bounds of a pool, per origin. A full pool refuses; it never queues."""

    max_connections: int = 1024
    max_idle: int = 64
    idle_expiry_s: float = 30.0
    connect_timeout_s: float = 5.0


class ConnectionPool:
    """Owns every connection it made until it is closed."""

    def __init__(self, limits: PoolLimits | None = None) -> None:
        self._limits = limits or PoolLimits()
        self._idle: dict[Origin, collections.deque[Connection]] = {}
        self._open: dict[Connection, Origin] = {}
        self._in_use: collections.Counter[Origin] = collections.Counter()
        self._ssl: ssl.SSLContext | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    def take_idle(self, origin: Origin) -> Connection | None:
        """Return a kept-alive connection, the most recently used first, or None."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            connection.idle_since = None
            if connection.reusable:
                return connection
            connection.abort()
        return None

    async def connect(self, origin: Origin) -> Connection:
        """Return a new connection.

        Raises:
            ConnectFailed: there was none within the connect timeout.
            TooManyConnections: the origin has as many as it may have.
        """
        if self._in_use[origin] >= self._limits.max_connections:
            raise TooManyConnections(f"all {self._limits.max_connections} connections are in use")
        self._in_use[origin] += 1
        try:
            connection = await self._dial(origin)
        except BaseException:
            self._in_use[origin] -= 1
            raise
        if connection.lost:
            self._in_use[origin] -= 1
            raise ConnectFailed("it closed the connection at once")
        self._open[connection] = origin
        return connection

    def release(self, connection: Connection, *, ended: bool) -> None:
        """Take a connection back. If its answer is not whole it is closed at once.

        With `ended` the answer has said its last word and only its framing is missing, which is
        waited for, in the background and not for long.
        """
        if connection.reusable:
            self._keep(connection)
        elif ended and not connection.lost:
            timer = asyncio.get_running_loop().call_later(LINGER_S, connection.abort)
            connection.when_complete(lambda: self._after_linger(connection, timer))
        else:
            connection.abort()

    def close(self) -> None:
        """Close every connection, in use or not."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._idle.clear()
        for connection in list(self._open):
            connection.abort()

    async def _dial(self, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()
        tls = self._tls() if origin.tls else None
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._forget), origin.host, origin.port, ssl=tls
                )
        except TimeoutError:
            waited = f"no answer within {self._limits.connect_timeout_s:g} s"
            raise ConnectFailed(waited) from None
        except OSError as error:
            raise ConnectFailed(error.strerror or str(error)) from error
        return connection

    def _tls(self) -> ssl.SSLContext:
        if self._ssl is None:
            self._ssl = ssl.create_default_context()
        return self._ssl

    def _after_linger(self, connection: Connection, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        if connection.reusable:
            self._keep(connection)
        else:
            connection.abort()

    def _keep(self, connection: Connection) -> None:
        idle = self._idle.setdefault(self._open[connection], collections.deque())
        if len(idle) >= self._limits.max_idle:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        idle.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._limits.idle_expiry_s, self._sweep)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._limits.idle_expiry_s
        for idle in self._idle.values():
            while idle and idle[0].idle_since is not None and idle[0].idle_since <= oldest:
                connection = idle.popleft()
                # It is no longer among the idle ones when it tells that it is lost.
                connection.idle_since = None
                connection.abort()
        waiting = any(self._idle.values())
        self._sweeper = (
            loop.call_later(self._limits.idle_expiry_s, self._sweep) if waiting else None
        )

    def _forget(self, connection: Connection) -> None:
        origin = self._open.pop(connection, None)
        if origin is None:
            return
        self._in_use[origin] -= 1
        idle = self._idle.get(origin)
        if idle and connection.idle_since is not None:
            idle.remove(connection)
