"""Gives up a client that has stopped reading: what it holds is a place that others wait for.

Servers wait for room in a connection's buffer without a bound, and behind its close once more.
"""

import asyncio
import fcntl
import logging
import struct
import termios
from typing import Any, Final

from cortex_core.logs import kv

log = logging.getLogger(__name__)

STALLED_S: Final = 300.0
"""How long a client of a gateway may take nothing of what is sent to it."""
NODE_STALLED_S: Final = 2 * STALLED_S
"""The same for clients of a node, gateways among them. A gateway reads on only for a client that
takes what it has; it has to find out about one that does not before the node loses patience with
the gateway, whose client would get an error of a sound node."""
_LOOKS: Final = 4
"""How often in that time it is looked at; so it may be a quarter longer."""


class StallWatch:
    """Aborts one connection whose peer takes nothing, between `begin` and `end`.

    A peer that takes anything is let be, however slow it is; what its own kernel keeps for it
    counts as taken. Belongs to the loop of the connection, whose protocol hears of the abort by
    `connection_lost`, as of a client that left.
    """

    def __init__(self, stalled_s: float) -> None:
        self._look_s = stalled_s / _LOOKS
        self._unsent_bytes = 0
        self._idle_looks = 0
        self._next_look: asyncio.TimerHandle | None = None

    def begin(self, transport: asyncio.WriteTransport) -> None:
        """What is in the buffer of `transport` has to go, and nothing more is put there.

        Idempotent; nothing happens where the buffer is empty.
        """
        if self._next_look is None and transport.get_write_buffer_size():
            self._unsent_bytes = _unsent_bytes(transport)
            self._idle_looks = 0
            self._wait(transport)

    def end(self) -> None:
        """The peer has read on, or is lost. Idempotent."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def _wait(self, transport: asyncio.WriteTransport) -> None:
        loop = asyncio.get_running_loop()
        self._next_look = loop.call_later(self._look_s, self._look, transport)

    def _look(self, transport: asyncio.WriteTransport) -> None:
        unsent_bytes = _unsent_bytes(transport)
        self._idle_looks = 0 if unsent_bytes < self._unsent_bytes else self._idle_looks + 1
        self._unsent_bytes = unsent_bytes
        if self._idle_looks < _LOOKS:
            self._wait(transport)
            return
        self._next_look = None
        log.warning("client cut off: it does not read", extra=kv(unsent_bytes=unsent_bytes))
        transport.abort()


class StallWatched(asyncio.Protocol):
    """To be named before a server's own protocol: gives up its peer as `StallWatch` does."""

    stalled_s = STALLED_S
    """How long a peer may take nothing."""
    transport: asyncio.Transport

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stall_watch = StallWatch(self.stalled_s)

    def pause_writing(self) -> None:
        """Called by the transport, whose buffer is full: what is sent now waits."""
        super().pause_writing()
        self._stall_watch.begin(self.transport)

    def resume_writing(self) -> None:
        """Called by the transport, whose buffer has room again."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stall_watch.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport."""
        super().connection_lost(exc)
        self._stall_watch.end()


def _unsent_bytes(transport: asyncio.WriteTransport) -> int:
    """Return what the peer has not got: our kernel takes more only once it has got rid of a lot."""
    fd = transport.get_extra_info("socket").fileno()
    queued: int = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))[0]
    return transport.get_write_buffer_size() + queued
