"""What an actor has to tell, in order and without loss: ring records and notices.

The supervisor moves records from the ring to per-request buffers at each `TokensReady` and never
waits for a client in between: a request whose buffer is high is paused, nothing else. So a full
ring means that the supervisor's loop itself is late. Then the records of the last step stay here,
the actor does not step until there is room, and says so by its phase. What can pile up is bounded
by one step and by the ends of requests that are cancelled meanwhile.
"""

from collections import deque

from cortex_core.errors import Overloaded
from cortex_core.ipc.blocking_channel import BlockingChannel
from cortex_core.ipc.ring import RingWriter
from neurond.protocol import DataCommand, Notice, TokensReady


class Outbox:
    """Owned by the actor's loop; nothing in it blocks."""

    def __init__(self, data: BlockingChannel[DataCommand], ring: RingWriter) -> None:
        self._data = data
        self._ring = ring
        self._pending: deque[bytes | Notice] = deque()
        self._told_head = ring.head

    def notice(self, notice: Notice) -> None:
        """Tell something behind everything that was put here before."""
        self._pending.append(notice)

    def record(self, record: bytes) -> None:
        """Put a record on the ring behind everything that was put here before."""
        self._pending.append(record)

    def flush(self) -> bool:
        """Send as much as there is room for; True if nothing is left.

        Records of one call are announced together: one message per engine step.
        """
        try:
            while self._pending:
                if not self._send(self._pending[0]):
                    self._announce()
                    return False
                self._pending.popleft()
            self._announce()
        except Overloaded:
            return False
        return True

    def _send(self, item: bytes | Notice) -> bool:
        if isinstance(item, bytes):
            return self._ring.try_write(item)
        self._announce()
        self._data.send(item)
        return True

    def _announce(self) -> None:
        head = self._ring.head
        if head != self._told_head:
            self._data.send(TokensReady(head))
            self._told_head = head
