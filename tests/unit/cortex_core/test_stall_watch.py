"""A client that stops reading is cut off; one that reads, however slowly, is not."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from cortex_core.stall_watch import StallWatch

GENEROUS_S = 30.0
LOOKS = 50


class Connection(asyncio.Transport):
    """`left` says at each look how much its buffer has.

    Attributes:
        peer: the other end of its socket.
    """

    def __init__(self) -> None:
        self._own, self.peer = socket.socketpair()
        super().__init__({"socket": self._own})
        self.left: Callable[[], int] = lambda: 1000
        self.aborted = asyncio.Event()
        self.seen_often = asyncio.Event()
        self.looks = 0

    def write(self, data: bytes) -> None:
        self._own.send(data)

    def get_write_buffer_size(self) -> int:
        self.looks += 1
        if self.looks == LOOKS:
            self.seen_often.set()
        return self.left()

    def abort(self) -> None:
        self.aborted.set()

    def close(self) -> None:
        self._own.close()
        self.peer.close()


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    made = Connection()
    yield made
    made.close()


async def turns() -> None:
    """Give the watch, which looks in every turn of the loop, time for many looks."""
    for _ in range(LOOKS):
        await asyncio.sleep(0)


async def is_let_be(connection: Connection) -> bool:
    """Whether it is there still after many looks."""
    watch = StallWatch(stalled_s=0.0)
    watch.begin(connection)
    await asyncio.wait_for(connection.seen_often.wait(), GENEROUS_S)
    watch.end()
    return not connection.aborted.is_set()


async def test_what_is_never_taken_ends_the_connection(connection: Connection) -> None:
    StallWatch(stalled_s=0.0).begin(connection)
    await asyncio.wait_for(connection.aborted.wait(), GENEROUS_S)


async def test_a_client_that_reads_at_first_is_cut_off_too(connection: Connection) -> None:
    connection.left = lambda: max(1000 - connection.looks, 1000 - LOOKS)
    StallWatch(stalled_s=0.0).begin(connection)
    await asyncio.wait_for(connection.aborted.wait(), GENEROUS_S)
    assert connection.looks > LOOKS


async def test_a_slow_client_is_let_be(connection: Connection) -> None:
    # A byte at every third look.
    connection.left = lambda: 1000 - connection.looks // 3
    assert await is_let_be(connection)


async def test_a_client_so_slow_that_only_the_kernel_sees_it_is_let_be(
    connection: Connection,
) -> None:
    for _ in range(2 * LOOKS):  # more than it is going to look
        connection.write(b"x")

    def read_by_one() -> int:
        connection.peer.recv(1)
        return 1000

    connection.left = read_by_one
    assert await is_let_be(connection)


async def test_nothing_is_cut_behind_the_end(connection: Connection) -> None:
    watch = StallWatch(stalled_s=0.0)
    watch.begin(connection)
    watch.end()
    await turns()
    assert not connection.aborted.is_set()


async def test_a_connection_with_nothing_left_is_not_watched(connection: Connection) -> None:
    connection.left = lambda: 0
    StallWatch(stalled_s=0.0).begin(connection)
    await turns()
    assert not connection.aborted.is_set()
    assert connection.looks == 1
