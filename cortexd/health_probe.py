"""Asks our own gateway over HTTP whether it is ready."""

import asyncio
from typing import Any

import msgspec

from cortex_core.config import Address
from cortex_core.decoding import UNDECODABLE
from cortexd.http1.errors import ConnectFailed, ConnectionLost, TooManyConnections
from cortexd.http1.exchange import Exchange
from cortexd.http1.message import Origin
from cortexd.http1.pool import ConnectionPool

PROBE_INTERVAL_S = 0.05
PROBE_TIMEOUT_S = 2.0

_OK = 200


class _Health(msgspec.Struct):
    healthy_nodes: int


class HealthProbe:
    """`GET /health` on the address a listening socket has.

    With `nodes`, so many nodes must be healthy too.
    """

    def __init__(self, listening_on: Any, *, nodes: int = 0) -> None:
        address = Address(*listening_on[:2]).from_here()
        self._origin = Origin(address.host, address.port)
        self._nodes = nodes

    async def until_ok(self) -> None:
        """Return once the answer is as it should be. The caller bounds the time."""
        pool = ConnectionPool()
        try:
            while True:
                if await self._ok(pool):
                    return
                await asyncio.sleep(PROBE_INTERVAL_S)
        finally:
            pool.close()

    async def _ok(self, pool: ConnectionPool) -> bool:
        exchange = Exchange(pool, self._origin, "GET", "/health", headers={})
        try:
            head = await exchange.head(PROBE_TIMEOUT_S)
            body = b""
            while head is not None and (chunk := await exchange.read(PROBE_TIMEOUT_S)):
                body += chunk
        except (ConnectFailed, ConnectionLost, TooManyConnections):
            return False
        finally:
            exchange.close()
        if head is None or head.status != _OK:
            return False
        try:
            return msgspec.json.decode(body, type=_Health).healthy_nodes >= self._nodes
        except UNDECODABLE:  # it stood still in the middle
            return False
