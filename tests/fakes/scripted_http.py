"""An HTTP server on loopback whose connections do exactly what the test says, byte by byte."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

Handler = Callable[["ScriptedConnection"], Awaitable[None]]


class ScriptedConnection:
    """One accepted connection. `number` counts them from 0 over the server's life."""

    def __init__(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.number = number
        self._reader = reader
        self._writer = writer

    async def request(self) -> tuple[str, bytes]:
        """Read one request; return its first line and its body."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *headers = head.split("\r\n")
        lengths = [line for line in headers if line.lower().startswith("content-length:")]
        size = int(lengths[0].split(":")[1]) if lengths else 0
        return first, await self._reader.readexactly(size)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def send_json(self, data: bytes, *, status: int = 200, extra: str = "") -> None:
        head = f"HTTP/1.1 {status} x\r\ncontent-length: {len(data)}\r\n{extra}\r\n"
        await self.send(head.encode() + data)

    async def begin_stream(self) -> None:
        await self.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")

    async def chunk(self, data: bytes) -> None:
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def closed_by_peer(self) -> None:
        """Return once the client is gone."""
        while await self._reader.read(65536):
            continue

    def reset(self) -> None:
        self._writer.transport.abort()


class ScriptedServer:
    """Runs `handler` once per connection; closing it ends what is still running."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0

    @property
    def endpoint(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = ScriptedConnection(self.connections, reader, writer)
        self.connections += 1
        try:
            await self._handler(connection)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            connection.reset()
        finally:
            self._tasks.discard(task)
            writer.close()
