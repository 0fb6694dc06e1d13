"""Senders of large bodies, to servers that hold no more than two of them."""

import asyncio
from collections import Counter
from pathlib import Path

from cortex_core.held_bodies import MAX_WAITING
from cortex_core.sizes import MIB
from tests.fakes.waiting import wait_until_async

HELD_MB = 3
BODY_BYTES = MIB + MIB // 4
NUM_REFUSED = 5


class Sender:
    """One connection; `send` sends a body of spaces but for its last byte."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._path = path

    async def send(self) -> "Sender":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = f"POST {self._path} HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
        self._writer.write(head.encode() + b" " * (BODY_BYTES - 1))
        await self._writer.drain()
        return self

    async def answer(self) -> tuple[int, bytes]:
        """Send the last byte; return status and head of the answer."""
        self._writer.write(b" ")
        head = await self._reader.readuntil(b"\r\n\r\n")
        self._writer.close()
        return int(head.split()[1]), head.lower()

    async def has_been_read(self) -> None:
        """Wait until the server has taken what was sent, which takes a place among the held."""
        await wait_until_async(lambda: _unread_bytes(self._writer) == 0)

    def leave(self) -> None:
        self._writer.close()


def _unread_bytes(writer: asyncio.StreamWriter) -> int:
    """Return what waits in the kernel on either side of a connection."""
    ports = {writer.get_extra_info(name)[1] for name in ("sockname", "peername")}
    unread = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if {int(end.rpartition(":")[2], 16) for end in (local, remote)} == ports:
            unread += sum(int(queue, 16) for queue in queues.split(":"))
    return unread


async def check_held_bodies(port: int, path: str, *, status: int) -> None:
    """Two hold all there is; as many wait as may; they are served when the two have left.

    `status` is of the answer to a body of spaces.
    """
    for _ in range(2):  # what is held comes back however it ended
        holders = [await Sender(port, path).send() for _ in range(2)]
        for holder in holders:
            await holder.has_been_read()

        async def ask() -> tuple[int, bytes]:
            return await (await Sender(port, path).send()).answer()

        asking = [asyncio.create_task(ask()) for _ in range(MAX_WAITING + NUM_REFUSED)]
        refused = Counter[int]()
        for done in asyncio.as_completed(asking):
            got, head = await done
            refused[got] += 1
            assert (b"retry-after: 1" in head) == (got == 429)
            if sum(refused.values()) == NUM_REFUSED:
                break
        assert refused == {429: NUM_REFUSED}
        holders[0].leave()
        assert (await holders[1].answer())[0] == status
        answers = Counter(got for got, _ in await asyncio.gather(*asking))
        assert answers == {429: NUM_REFUSED, status: MAX_WAITING}
