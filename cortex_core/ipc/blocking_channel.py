"""Typed messages over ZeroMQ for a thread with a loop of its own, such as a device actor's.

Needs no asyncio, whose import takes as long as half of the rest of such a process.
"""

import logging
from collections.abc import Iterable
from typing import Any, Final, Generic, TypeVar

import msgspec
import zmq

from cortex_core.errors import Overloaded, ProtocolError
from cortex_core.ipc.sockets import BoundSocket, ZmqSocket
from cortex_core.logs import kv

M = TypeVar("M")

QUEUE_FULL: Final = "cannot send message: the peer's queue is full, or nobody is connected yet"

_log = logging.getLogger(__name__)


def decode_message(
    decoder: msgspec.msgpack.Decoder[M], frames: list[bytes], expected_frames: int
) -> M:
    """Return the message in the last frame.

    Raises:
        ProtocolError: it cannot be decoded, or there are not so many frames.
    """
    if len(frames) != expected_frames:
        raise ProtocolError(f"cannot decode message: it has {len(frames)} frames")
    try:
        return decoder.decode(frames[-1])
    except msgspec.MsgspecError as ex:
        raise ProtocolError(f"cannot decode message of {len(frames[-1])} bytes: {ex}") from ex


def close_socket(owner: ZmqSocket | BoundSocket, linger_s: float) -> None:
    """Close a socket and what belongs to it; what is not sent yet has `linger_s` to leave."""
    if isinstance(owner, BoundSocket):
        owner.close(linger_s=linger_s)
    else:
        owner.close(linger=round(linger_s * 1000))


class BlockingChannel(Generic[M]):
    """One peer, for a thread without an asyncio loop. Takes over `socket`; one thread only."""

    def __init__(
        self, socket: ZmqSocket | BoundSocket, decoder: msgspec.msgpack.Decoder[M]
    ) -> None:
        self._owner = socket
        self.socket = socket.socket if isinstance(socket, BoundSocket) else socket
        self._decoder = decoder
        self._encoder = msgspec.msgpack.Encoder()

    def send(self, message: msgspec.Struct) -> None:
        """Queue a message for the peer; never blocks.

        Raises:
            Overloaded: the high-water mark is reached, or nobody has connected to a bound socket
                yet; nothing was queued.
        """
        try:
            self.socket.send(self._encoder.encode(message), zmq.NOBLOCK)
        except zmq.Again as ex:
            raise Overloaded(QUEUE_FULL) from ex

    def try_recv(self) -> list[M]:
        """Return every message that is here, oldest first; never blocks.

        A message that cannot be decoded is logged and dropped.
        """
        messages: list[M] = []
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return messages
            try:
                messages.append(decode_message(self._decoder, frames, 1))
            except ProtocolError as ex:
                _log.error("message dropped", extra=kv(cause=ex.message))

    def close(self, *, linger_s: float = 0.0) -> None:
        """Close the socket. Idempotent.

        What is not sent yet has `linger_s` to leave; ending the ZeroMQ context waits for it.
        """
        close_socket(self._owner, linger_s)


def wait_readable(
    channels: Iterable[BlockingChannel[Any]], timeout_s: float, fds: Iterable[int] = ()
) -> bool:
    """Wait until a channel has a message or a descriptor is readable; False after `timeout_s`."""
    poller = zmq.Poller()
    for channel in channels:
        poller.register(channel.socket, zmq.POLLIN)
    for fd in fds:
        poller.register(fd, zmq.POLLIN)
    return bool(poller.poll(max(0, round(timeout_s * 1000))))
