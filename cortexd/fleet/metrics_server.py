"""A very small HTTP server for `/metrics` and `/health` on :31314. GET only, one answer each."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from cortex_core.config.address import Address
from cortex_core.errors import ConfigError
from cortex_core.logs import kv

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 10.0
"""From the beginning of a connection until its answer is sent."""
MAX_CONNECTIONS = 64
"""More are cut off at once."""
MAX_HEAD_BYTES = 16 * 1024

Page = Callable[[], Awaitable[tuple[int, str, bytes]]]
"""Makes an answer: status, content type, body."""

_REASONS = {
    200: "OK",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class MetricsServer:
    """Serves pages by path. Every connection is closed after one answer."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = dict(pages)
        self._server: asyncio.Server | None = None
        self._num_connections = 0

    async def start(self, address: Address) -> int:
        """Listen; return the port, which matters where `address` left it to the kernel.

        Raises:
            ConfigError: the address is in use or not ours.
        """
        try:
            self._server = await asyncio.start_server(
                self._serve, address.host, address.port, limit=MAX_HEAD_BYTES
            )
        except OSError as ex:
            raise ConfigError(
                f"cannot listen on {address}: {ex.strerror or ex}; change gateway.metrics_listen",
                param="gateway.metrics_listen",
            ) from ex
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Close the listening socket."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._num_connections >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._num_connections += 1
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                status, kind, body = await self._answer(head)
                reason = _REASONS.get(status, "Error")
                writer.write(
                    f"HTTP/1.1 {status} {reason}\r\ncontent-type: {kind}\r\n"
                    f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
                    + body
                )
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # The peer is slow, gone, or speaks something else; nothing is owed to it.
            pass
        finally:
            self._num_connections -= 1
            # A close would wait for the peer to read what is left.
            writer.transport.abort()

    async def _answer(self, head: bytes) -> tuple[int, str, bytes]:
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        path = rest.split(" ")[0].split("?")[0]
        page = self._pages.get(path)
        if method != "GET":
            return 405, "text/plain", b"only GET\n"
        if page is None:
            return 404, "text/plain", f"known are {', '.join(self._pages)}\n".encode()
        try:
            return await page()
        except Exception:  # a page's defect is the caller's answer
            log.exception("page failed", extra=kv(path=path))
            return 500, "text/plain", b"cannot make this page: the log of the gateway says why\n"
