"""Bodies that are counted, and what becomes of those that get no place."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from cortex_core import held_bodies
from cortex_core.errors import Overloaded, QueueFull, RequestTooSlow
from cortex_core.held_bodies import HeldBodies
from cortex_core.sizes import MIB

CHUNK = 256 * 1024


class Server:
    """Gives an application requests, and keeps it at what it read until `gate` opens."""

    def __init__(self, limit_mb: int, wait_s: float = 30.0) -> None:
        self.gate = asyncio.Event()
        self.read_bytes: list[int] = []
        self.app = HeldBodies(
            self._answer, limit_bytes=limit_mb * MIB, max_body_bytes=4 * MIB, wait_s=wait_s
        )

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        self.read_bytes.append(size)
        await self.gate.wait()

    def post(
        self,
        size: int,
        headers: Sequence[tuple[bytes, bytes]] | None = None,
        *,
        stands_still: bool = False,
    ) -> asyncio.Task:
        chunks = [CHUNK] * (size // CHUNK) + [size % CHUNK]

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            if stands_still and len(chunks) == 1:
                await asyncio.Event().wait()
            body = bytes(chunks.pop(0))
            return {"type": "http.request", "body": body, "more_body": bool(chunks)}

        async def send(_message: object) -> None:
            raise AssertionError("nothing is answered")

        if headers is None:
            headers = [(b"content-length", b"%d" % size)]
        scope = {"type": "http", "http_version": "1.1", "headers": headers}
        return asyncio.create_task(self.app(scope, receive, send))

    async def has_read(self, *sizes: int) -> None:
        for _ in range(1000):
            await asyncio.sleep(0)
        assert sorted(self.read_bytes) == sorted(sizes)
        self.read_bytes.clear()


async def test_only_large_bodies_are_counted() -> None:
    server = Server(limit_mb=3)
    posts = [server.post(MIB) for _ in range(8)] + [server.post(2 * MIB)]
    await server.has_read(*[MIB] * 8, 2 * MIB)
    waiting = server.post(2 * MIB)
    await server.has_read()
    server.gate.set()
    await asyncio.gather(*posts, waiting)
    await server.has_read(2 * MIB)


async def test_one_that_does_not_say_its_length_is_counted_as_the_longest() -> None:
    server = Server(limit_mb=6)
    chunked = [(b"transfer-encoding", b"chunked")]
    small = server.post(MIB // 2, chunked)
    large = server.post(2 * MIB, chunked, stands_still=True)
    await server.has_read(MIB // 2)
    waiting = server.post(MIB + 1)
    await server.has_read(MIB + 1)
    more = server.post(MIB + 1)
    await server.has_read()
    large.cancel()
    await server.has_read(MIB + 1)
    server.gate.set()
    await asyncio.gather(small, waiting, more)


async def test_what_was_kept_for_one_is_given_back_when_its_end_is_seen() -> None:
    server = Server(limit_mb=8)
    chunked = [(b"transfer-encoding", b"chunked")]
    posts = [server.post(2 * MIB, chunked) for _ in range(3)]  # each counts as 4 MiB at first
    await server.has_read(*[2 * MIB] * 3)
    server.gate.set()
    await asyncio.gather(*posts)


async def test_one_that_is_sent_too_slowly_loses_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(held_bodies, "SENT_S", 0.0)
    monkeypatch.setattr(held_bodies, "SENT_BYTES_PER_S", 2**40)
    server = Server(limit_mb=2)
    with pytest.raises(RequestTooSlow, match="cannot take a body of 2\\.0 MiB"):
        await server.post(2 * MIB, stands_still=True)
    monkeypatch.undo()
    server.gate.set()
    await server.post(2 * MIB)


async def test_what_the_application_does_not_take_has_no_place() -> None:
    server = Server(limit_mb=5)
    posts = [server.post(5 * MIB) for _ in range(3)]
    await server.has_read(*[5 * MIB] * 3)
    server.gate.set()
    await asyncio.gather(*posts)


async def test_who_leaves_gives_back_and_is_not_waited_for() -> None:
    server = Server(limit_mb=2)
    held, leaving, waiting = (server.post(2 * MIB) for _ in range(3))
    await server.has_read(2 * MIB)
    for task in (leaving, held):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await server.has_read(2 * MIB)
    server.gate.set()
    await waiting


async def test_a_place_that_does_not_come_in_time() -> None:
    server = Server(limit_mb=2, wait_s=0.01)
    held = server.post(2 * MIB)
    await server.has_read(2 * MIB)
    with pytest.raises(Overloaded, match="cannot take a body of 2\\.0 MiB"):
        await server.post(2 * MIB)
    server.gate.set()
    await held
    await server.post(2 * MIB)


async def test_a_full_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_bodies, "MAX_WAITING", 1)
    server = Server(limit_mb=2)
    held, waiting = server.post(2 * MIB), server.post(2 * MIB)
    await server.has_read(2 * MIB)
    with pytest.raises(QueueFull):
        await server.post(2 * MIB)
    server.gate.set()
    await asyncio.gather(held, waiting)
