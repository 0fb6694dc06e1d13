"""Typed messages over ZeroMQ: msgpack out, one known union of types in.

`Channel` and `RouterChannel` belong to an asyncio loop and never block it; processes with a loop of
their own have `blocking_channel`. Queues are bounded by the socket's high-water mark; a send that
finds it reached raises `Overloaded`, and the sender decides.

ZeroMQ's descriptor is edge-triggered: it becomes readable when something happened, once. So a
wake-up drains the socket until nothing is left, and because sending and receiving consume the edge
as well, readiness is asked for again after each send.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar, cast

import msgspec
import zmq

from cortex_core.errors import InternalError, NodeUnavailable, Overloaded, ProtocolError
from cortex_core.ipc.blocking_channel import QUEUE_FULL, close_socket, decode_message
from cortex_core.ipc.sockets import BoundSocket, ZmqSocket
from cortex_core.logs import kv

M = TypeVar("M")
T = TypeVar("T")

_log = logging.getLogger(__name__)

_DRAIN_BATCH = 256
"""Messages handled in one turn of the loop, so that a flood does not starve everything else."""

_CLOSED = "cannot use channel: it is closed"


class _LoopChannel(Generic[M]):
    """The part of both asyncio channels that watches the socket. Loop thread only."""

    def __init__(self, socket: ZmqSocket | BoundSocket, read: Callable[[list[bytes]], M]) -> None:
        self._owner = socket
        self._socket = socket.socket if isinstance(socket, BoundSocket) else socket
        self._read = read
        self._fd = cast("int", self._socket.getsockopt(zmq.FD))
        self._encoder = msgspec.msgpack.Encoder()
        self._loop = asyncio.get_running_loop()
        self._handler: Callable[[M], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._again: asyncio.Handle | None = None
        self._loop.add_reader(self._fd, self._on_edge)

    @property
    def closed(self) -> bool:
        return self._socket.closed

    def on_message(self, handler: Callable[[M], None]) -> None:
        """Call `handler` with every message from now on, in order, on the loop.

        What it raises is logged and the next message goes on. A message that cannot be decoded
        is logged and dropped. Use this or `recv`, not both.
        """
        self._handler = handler
        self._schedule()

    async def recv(self) -> M:
        """Return the next message. One caller at a time; cancelling loses no message.

        Raises:
            ProtocolError: the message cannot be decoded; it is dropped.
            InternalError: the channel is closed, or was while waiting.
        """
        if self._handler is not None or self._waiter is not None:
            raise InternalError("cannot receive: somebody else receives on this channel")
        while True:
            frames = self._receive()
            if frames is not None:
                return self._read(frames)
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def close(self, *, linger_s: float = 0.0) -> None:
        """Stop watching and close the socket. Idempotent.

        What is not sent yet has `linger_s` to leave; ending the ZeroMQ context waits for it.
        """
        if self._socket.closed:
            return
        self._loop.remove_reader(self._fd)
        if self._again is not None:
            self._again.cancel()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(InternalError(_CLOSED))
        close_socket(self._owner, linger_s)

    def _receive(self) -> list[bytes] | None:
        if self._socket.closed:
            raise InternalError(_CLOSED)
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def _transmit(self, frames: list[bytes]) -> None:
        if self._socket.closed:
            raise InternalError(_CLOSED)
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again as ex:
            raise Overloaded(QUEUE_FULL) from ex
        finally:
            # Sending consumes the edge that would have told of an incoming message.
            if cast("int", self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                self._schedule()

    def _schedule(self) -> None:
        if self._again is None and not self._socket.closed:
            self._again = self._loop.call_soon(self._drain)

    def _on_edge(self) -> None:
        # With a turn already on its way, draining here too would double the batch.
        if self._again is None:
            self._drain()

    def _drain(self) -> None:
        self._again = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._handler is None:
            # The edge is spent only by asking; without that the loop would spin on the descriptor.
            self._socket.getsockopt(zmq.EVENTS)
            return
        for _ in range(_DRAIN_BATCH):
            frames = None if self._socket.closed else self._receive()
            if frames is None:
                return
            self._deliver(frames, self._handler)
        self._schedule()

    def _deliver(self, frames: list[bytes], handler: Callable[[M], None]) -> None:
        try:
            handler(self._read(frames))
        except ProtocolError as ex:
            _log.error("message dropped", extra=kv(cause=ex.message))
        except Exception:  # noqa: BLE001 - one handler's defect must not stop the rest
            _log.exception("message handler failed")


class Channel(_LoopChannel[M]):
    """One peer: a DEALER or PAIR socket in an asyncio loop.

    Takes over `socket`; `close` closes it. Make it while the loop runs, use it on the loop only.
    `decoder` is msgpack for the union of messages that may arrive.
    """

    def __init__(
        self, socket: ZmqSocket | BoundSocket, decoder: msgspec.msgpack.Decoder[M]
    ) -> None:
        super().__init__(socket, lambda frames: decode_message(decoder, frames, 1))

    def send(self, message: msgspec.Struct) -> None:
        """Queue a message for the peer; never blocks.

        Raises:
            Overloaded: the high-water mark is reached, or nobody has connected to a bound socket
                yet; nothing was queued.
            InternalError: the channel is closed.
        """
        self._transmit([self._encoder.encode(message)])


class RouterChannel(_LoopChannel[tuple[bytes, T]]):
    """Many peers: a ROUTER socket. Messages are pairs of the peer's identity and the message."""

    def __init__(
        self, socket: ZmqSocket | BoundSocket, decoder: msgspec.msgpack.Decoder[T]
    ) -> None:
        super().__init__(socket, lambda frames: (frames[0], decode_message(decoder, frames, 2)))

    def send(self, peer: bytes, message: msgspec.Struct) -> None:
        """Queue a message for one peer; never blocks.

        Raises:
            Overloaded: that peer's high-water mark is reached; nothing was queued.
            NodeUnavailable: no peer of that identity is connected.
            InternalError: the channel is closed.
        """
        try:
            self._transmit([peer, self._encoder.encode(message)])
        except zmq.ZMQError as ex:
            if ex.errno != zmq.EHOSTUNREACH:
                raise
            raise NodeUnavailable(f"cannot send message: peer {peer!r} is gone") from ex
