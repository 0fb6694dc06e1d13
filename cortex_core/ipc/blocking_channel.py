"""Typed messages over ZeroMQ for a thread with a loop of its own, such as a device actor's.

Needs no asyncio, whose import takes as long as half of the rest of such a process.
"""

import logging
import math
import select
import time
from collections.abc import Iterable
from typing import Any, Final, Generic, TypeVar, cast

import msgspec
import zmq

from cortex_core.decoding import UNDECODABLE
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
    except UNDECODABLE as ex:
        raise ProtocolError(f"cannot decode message of {len(frames[-1])} bytes: {ex}") from ex


def close_socket(owner: ZmqSocket | BoundSocket, linger_s: float) -> None:
    """Close a socket and what belongs to it; what is not sent yet has `linger_s` to leave."""
    if isinstance(owner, BoundSocket):
        owner.close(linger_s=linger_s)
    else:
        owner.close(linger=round(linger_s * 1000))


class BlockingChannel(Generic[M]):
    """One peer, for a thread without an asyncio loop. Takes over `socket`; one thread only.

    Attributes:
        unseen: there may be a message of which the descriptor does not tell.
    """

    def __init__(
        self, socket: ZmqSocket | BoundSocket, decoder: msgspec.msgpack.Decoder[M]
    ) -> None:
        self._owner = socket
        self.socket = socket.socket if isinstance(socket, BoundSocket) else socket
        self._decoder = decoder
        self._encoder = msgspec.msgpack.Encoder()
        self.unseen = False

    def send(self, message: msgspec.Struct) -> None:
        """Queue a message for the peer; never blocks.

        Raises:
            Overloaded: the high-water mark is reached, or nobody has connected to a bound socket
                yet; nothing was queued.
        """
        # Sending may consume what the descriptor would have told of a message that came in.
        self.unseen = True
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
                self.unseen = False
                return messages
            try:
                messages.append(decode_message(self._decoder, frames, 1))
            except ProtocolError as ex:
                _log.error("message dropped", extra=kv(cause=ex.message))

    def has_message(self, *, told: bool) -> bool:
        """Whether a message is here. `told` is whether `fd` of the socket is readable."""
        if told or self.unseen:
            self.unseen = bool(cast("int", self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)
        return self.unseen

    def close(self, *, linger_s: float = 0.0) -> None:
        """Close the socket. Idempotent.

        What is not sent yet has `linger_s` to leave; ending the ZeroMQ context waits for it.
        """
        close_socket(self._owner, linger_s)


class Wakeups:
    """What a thread's loop looks at and waits for: channels' messages, and other descriptors.

    One call to the kernel asks for all of them, as it is made before every turn of the loop.
    """

    def __init__(self, channels: Iterable[BlockingChannel[Any]], fds: Iterable[int] = ()) -> None:
        """Channels and descriptors stay their owners' to close, after the last call here."""
        self._channels = {
            cast("int", channel.socket.getsockopt(zmq.FD)): channel for channel in channels
        }
        self._poll = select.poll()
        for fd in (*self._channels, *fds):
            self._poll.register(fd, select.POLLIN)

    def pending(self) -> bool:
        """Return whether a channel has a message or a descriptor is readable; never blocks."""
        told = self._poll.poll(0)
        if not told and not any(channel.unseen for channel in self._channels.values()):
            return False
        fds = {fd for fd, _ in told}
        if fds - self._channels.keys():
            return True
        return any(channel.has_message(told=fd in fds) for fd, channel in self._channels.items())

    def wait(self, timeout_s: float) -> bool:
        """Return true once something is `pending`, false after `timeout_s`."""
        until_s = time.monotonic() + timeout_s
        while not self.pending():
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return False
            # It may be told of what is no message.
            self._poll.poll(math.ceil(1000 * left_s))
        return True
