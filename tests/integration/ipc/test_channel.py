"""Messages over ZeroMQ come whole, in order and once, or their sender is told at once."""

import asyncio
import itertools
import logging
import os

import msgspec
import pytest
import zmq

from cortex_core.errors import (
    InternalError,
    NodeUnavailable,
    Overloaded,
    ProtocolError,
)
from cortex_core.ipc.blocking_channel import BlockingChannel, Wakeups
from cortex_core.ipc.channel import Channel, RouterChannel
from cortex_core.ipc.sockets import (
    bind_socket,
    connect_socket,
)
from tests.fakes.waiting import WAIT_S, wait_until_async


class Note(msgspec.Struct, frozen=True, tag=True, array_like=True):
    number: int


DECODER = msgspec.msgpack.Decoder(Note)


async def test_both_sides_talk_while_both_send(context, closing, path) -> None:
    server = closing(Channel(bind_socket(context, zmq.DEALER, path, hwm_messages=1000), DECODER))
    client = closing(Channel(connect_socket(context, zmq.DEALER, path, hwm_messages=1000), DECODER))
    seen: dict[str, list[int]] = {"server": [], "client": []}

    def answer(note: Note) -> None:
        seen["server"].append(note.number)
        server.send(note)

    server.on_message(answer)
    client.on_message(lambda note: seen["client"].append(note.number))
    for number in range(500):
        client.send(Note(number))
    await wait_until_async(lambda: len(seen["client"]) == 500)
    assert seen["server"] == seen["client"] == list(range(500))


async def test_ping_pong_never_loses_an_edge(context, closing, path) -> None:
    server = closing(Channel(bind_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER))
    client = closing(Channel(connect_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER))
    server.on_message(server.send)
    for number in range(1000):
        client.send(Note(number))
        assert (await asyncio.wait_for(client.recv(), WAIT_S)).number == number


async def test_router_names_its_peers(context, closing, path) -> None:
    router = closing(
        RouterChannel(bind_socket(context, zmq.ROUTER, path, hwm_messages=10), DECODER)
    )
    names = [b"w0", b"w1"]
    peers = [
        closing(
            Channel(
                connect_socket(context, zmq.DEALER, path, hwm_messages=10, routing_id=name), DECODER
            )
        )
        for name in names
    ]
    for number, peer in enumerate(peers):
        peer.send(Note(number))
    got = dict([await asyncio.wait_for(router.recv(), WAIT_S) for _ in peers])
    assert got == {b"w0": Note(0), b"w1": Note(1)}
    router.send(b"w1", Note(11))
    router.send(b"w0", Note(10))
    assert await asyncio.wait_for(peers[0].recv(), WAIT_S) == Note(10)
    assert await asyncio.wait_for(peers[1].recv(), WAIT_S) == Note(11)
    with pytest.raises(NodeUnavailable, match="peer b'w9' is gone"):
        router.send(b"w9", Note(9))


async def test_respawned_peer_takes_over_its_name(context, closing, path) -> None:
    router = closing(
        RouterChannel(bind_socket(context, zmq.ROUTER, path, hwm_messages=10), DECODER)
    )
    for life in range(2):
        peer = closing(
            Channel(
                connect_socket(context, zmq.DEALER, path, hwm_messages=10, routing_id=b"w0"),
                DECODER,
            )
        )
        peer.send(Note(life))
        assert await asyncio.wait_for(router.recv(), WAIT_S) == (b"w0", Note(life))
    router.send(b"w0", Note(7))
    assert await asyncio.wait_for(peer.recv(), WAIT_S) == Note(7)


async def test_full_queue_is_told_and_drops_nothing(context, closing, path) -> None:
    client = closing(Channel(connect_socket(context, zmq.DEALER, path, hwm_messages=3), DECODER))
    for number in range(3):
        client.send(Note(number))
    with pytest.raises(Overloaded, match="queue is full"):
        client.send(Note(3))
    server = closing(Channel(bind_socket(context, zmq.DEALER, path, hwm_messages=3), DECODER))
    assert [(await asyncio.wait_for(server.recv(), WAIT_S)).number for _ in range(3)] == [0, 1, 2]


async def test_defects_of_handlers_and_peers_are_logged_and_passed_over(
    context, closing, path, caplog
) -> None:
    server = closing(Channel(bind_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER))
    raw = closing(connect_socket(context, zmq.DEALER, path, hwm_messages=10))
    seen: list[int] = []

    def handle(note: Note) -> None:
        if note.number == 1:
            raise RuntimeError("boom")
        seen.append(note.number)

    with caplog.at_level(logging.ERROR):
        server.on_message(handle)
        raw.send(b"\xc1 no msgpack")
        raw.send(b"\x91" * 100_000)
        raw.send_multipart([b"two", b"frames"])
        raw.send(msgspec.msgpack.encode(Note(1)))
        raw.send(msgspec.msgpack.encode(Note(2)))
        await wait_until_async(lambda: seen == [2])
    assert [record.getMessage() for record in caplog.records] == [
        "message dropped",
        "message dropped",
        "message dropped",
        "message handler failed",
    ]


async def test_recv_raises_for_what_it_cannot_decode_and_goes_on(context, closing, path) -> None:
    server = closing(Channel(bind_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER))
    raw = closing(connect_socket(context, zmq.DEALER, path, hwm_messages=10))
    raw.send(b"\xc1")
    raw.send(msgspec.msgpack.encode(Note(2)))
    with pytest.raises(ProtocolError, match="cannot decode message of 1 bytes"):
        await asyncio.wait_for(server.recv(), WAIT_S)
    assert await asyncio.wait_for(server.recv(), WAIT_S) == Note(2)


async def test_cancelled_recv_loses_no_message(context, closing, path) -> None:
    server = closing(Channel(bind_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER))
    client = closing(Channel(connect_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER))
    waiting = asyncio.create_task(server.recv())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    client.send(Note(1))
    assert await asyncio.wait_for(server.recv(), WAIT_S) == Note(1)


async def test_close_ends_a_waiting_recv_and_removes_the_file(context, path) -> None:
    server = Channel(bind_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER)
    waiting = asyncio.create_task(server.recv())
    await asyncio.sleep(0)
    server.close()
    server.close()
    with pytest.raises(InternalError, match="closed"):
        await waiting
    with pytest.raises(InternalError, match="closed"):
        server.send(Note(1))
    assert server.closed
    assert not path.exists()


async def test_handler_may_close_its_own_channel(context, closing, path) -> None:
    server = Channel(bind_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER)
    client = closing(Channel(connect_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER))
    server.on_message(lambda _: server.close())
    client.send(Note(1))
    client.send(Note(2))
    await wait_until_async(lambda: server.closed)
    assert not path.exists()


def test_blocking_side_polls_and_drains(context, closing, path) -> None:
    server = closing(
        BlockingChannel(bind_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER)
    )
    client = closing(
        BlockingChannel(connect_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER)
    )
    wakeups = Wakeups([server])
    assert not wakeups.wait(0.0)
    assert server.try_recv() == []
    for number in range(5):
        client.send(Note(number))
    got: list[Note] = []
    while len(got) < 5:
        assert wakeups.wait(WAIT_S)
        got += server.try_recv()
    assert [note.number for note in got] == list(range(5))


def test_a_message_that_came_before_a_send_is_not_missed(context, closing, path) -> None:
    server = closing(
        BlockingChannel(bind_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER)
    )
    client = closing(
        BlockingChannel(connect_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER)
    )
    wakeups, others = Wakeups([server]), Wakeups([client])
    client.send(Note(0))
    for number in range(50):
        assert wakeups.wait(WAIT_S)
        # What says that this is here may be used up by what is sent now.
        server.send(Note(number))
        assert wakeups.wait(WAIT_S)
        assert server.try_recv() == [Note(number)]
        assert not wakeups.pending()
        assert others.wait(WAIT_S)
        assert client.try_recv() == [Note(number)]
        client.send(Note(number + 1))


def test_blocking_side_tells_of_a_full_queue(context, closing, path) -> None:
    client = closing(
        BlockingChannel(connect_socket(context, zmq.DEALER, path, hwm_messages=1), DECODER)
    )
    client.send(Note(0))
    with pytest.raises(Overloaded, match="queue is full"):
        client.send(Note(1))


def test_blocking_side_drops_what_it_cannot_decode(context, closing, path, caplog) -> None:
    server = closing(
        BlockingChannel(bind_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER)
    )
    raw = closing(connect_socket(context, zmq.DEALER, path, hwm_messages=10))
    raw.send(b"\xc1")
    raw.send(msgspec.msgpack.encode(Note(1)))
    got: list[Note] = []
    with caplog.at_level(logging.ERROR):
        while not got:
            assert Wakeups([server]).wait(WAIT_S)
            got += server.try_recv()
    assert got == [Note(1)]
    assert [record.getMessage() for record in caplog.records] == ["message dropped"]


async def test_messages_go_to_one_receiver_only(context, closing, path) -> None:
    server = closing(Channel(bind_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER))
    waiting = asyncio.create_task(server.recv())
    await asyncio.sleep(0)
    with pytest.raises(InternalError, match="somebody else receives"):
        await server.recv()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    server.on_message(lambda _: None)
    with pytest.raises(InternalError, match="somebody else receives"):
        await server.recv()


async def test_last_words_leave_within_the_linger(context, closing, path) -> None:
    server = closing(Channel(bind_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER))
    client = Channel(connect_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER)
    client.send(Note(1))
    client.close(linger_s=WAIT_S)
    assert await asyncio.wait_for(server.recv(), WAIT_S) == Note(1)


def test_wait_ends_for_a_descriptor_too(context, closing, path) -> None:
    server = closing(
        BlockingChannel(bind_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER)
    )
    reader, writer = os.pipe()
    os.write(writer, b"x")
    assert Wakeups([server], fds=[reader]).wait(WAIT_S)
    os.close(reader)
    os.close(writer)


async def test_message_sent_before_the_peer_is_there_waits_for_it(context, closing, path) -> None:
    client = closing(Channel(connect_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER))
    client.send(Note(1))
    server = closing(Channel(bind_socket(context, zmq.DEALER, path, hwm_messages=10), DECODER))
    assert await asyncio.wait_for(server.recv(), WAIT_S) == Note(1)


async def test_connecting_side_outlives_the_serving_one(context, closing, path) -> None:
    peer = connect_socket(context, zmq.DEALER, path, hwm_messages=1000, routing_id=b"w0")
    client = closing(Channel(peer, DECODER))
    answers: list[int] = []
    client.on_message(lambda note: answers.append(note.number))

    def ask(number: int) -> bool:
        client.send(Note(number))
        return number in answers

    for life in range(3):
        bound = bind_socket(context, zmq.ROUTER, path, hwm_messages=1000)
        server: RouterChannel[Note] = closing(RouterChannel(bound, DECODER))
        server.on_message(lambda pair, server=server: server.send(*pair))
        await wait_until_async(lambda life=life: ask(life))
        server.close()


async def test_flood_leaves_the_loop_to_others(context, closing, path) -> None:
    server = closing(Channel(bind_socket(context, zmq.DEALER, path, hwm_messages=5000), DECODER))
    client = closing(Channel(connect_socket(context, zmq.DEALER, path, hwm_messages=5000), DECODER))
    for number in range(5000):
        client.send(Note(number))
    seen: list[int] = []
    turns: list[int] = []
    server.on_message(lambda note: seen.append(note.number))
    while len(seen) < 5000:
        turns.append(len(seen))
        await asyncio.sleep(0)
    assert seen == list(range(5000))
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 256
