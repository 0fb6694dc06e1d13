"""What an actor has to tell, in order and without loss: records of the token ring.

Tokens and notices go the same way, so that they stay in order. The supervisor moves them from the
ring to where they belong at each ring of the bell and never waits for a client in between: a
request whose buffer is high is paused, nothing else. So a full ring means that the supervisor's
loop itself is late. Then the records of the last step stay here, the actor does not step until
there is room, and says so by its phase. What can pile up is bounded by one step and by the ends of
requests that are cancelled meanwhile.
"""

from typing import Final

import msgspec

from cortex_core.ipc.bell import Bell
from cortex_core.ipc.ring import RingWriter
from neurond.protocol import ModelLoadFailed, RequestFailed, RingNotice
from neurond.ring_records import encode_notice

MAX_MESSAGE: Final = 8192
"""Characters of an error that are told: one that is longer than the ring takes ends the actor."""


class Outbox:
    """Owned by the actor's loop; nothing in it blocks."""

    def __init__(self, ring: RingWriter, bell: Bell) -> None:
        self._ring = ring
        self._bell = bell
        self._pending: list[bytes] = []

    def notice(self, notice: RingNotice) -> None:
        """Tell something behind everything that was put here before; a long error is cut."""
        if isinstance(notice, RequestFailed | ModelLoadFailed):
            message = notice.error.message[:MAX_MESSAGE]
            error = msgspec.structs.replace(notice.error, message=message)
            notice = msgspec.structs.replace(notice, error=error)
        self._pending.append(encode_notice(notice))

    def record(self, record: bytes) -> None:
        """Put a record on the ring behind everything that was put here before."""
        self._pending.append(record)

    def flush(self) -> bool:
        """Write as much as there is room for; True if nothing is left.

        Records of one call are announced together: the bell rings once per engine step.
        """
        pending = self._pending
        if not pending:
            return True
        written = self._ring.write(pending)
        if written:
            del pending[:written]
            self._bell.ring()
        return not pending
