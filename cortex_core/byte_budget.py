"""A bound on what many hold together, with a queue. Decides; who asks waits by itself."""

from collections import deque
from collections.abc import Callable
from typing import Final

from cortex_core.errors import QueueFull
from cortex_core.sizes import MIB

RETRY_AFTER_S: Final = 1.0


class Share:
    """Bytes of a `ByteBudget`: asked for, had, or given back.

    Attributes:
        size_bytes: what was asked for.
        granted: whether they are had.
    """

    def __init__(self, size_bytes: int, on_granted: Callable[[], None]) -> None:
        self.size_bytes = size_bytes
        self.granted = False
        self.on_granted = on_granted


class ByteBudget:
    """First come, first served, so that a large share is not passed by small ones for ever."""

    def __init__(self, limit_bytes: int, max_waiting: int) -> None:
        """One share alone may have more than `limit_bytes`."""
        self._limit_bytes = limit_bytes
        self._max_waiting = max_waiting
        self._waiting: deque[Share] = deque()
        self._held: dict[Share, None] = {}
        self.held_bytes = 0

    def ask(self, size_bytes: int, on_granted: Callable[[], None]) -> Share:
        """Return a share, granted now or waiting; then `on_granted` is called once it is.

        Raises:
            QueueFull: too many wait.
        """
        share = Share(size_bytes, on_granted)
        self._waiting.append(share)
        self._grant()
        if not share.granted and len(self._waiting) > self._max_waiting:
            self._waiting.remove(share)
            raise QueueFull(
                f"cannot take {size_bytes / MIB:.1f} MiB: others have {self.held_bytes / MIB:.1f}, "
                f"{self._limit_bytes / MIB:.1f} is the most, and {len(self._waiting)} wait; retry "
                "later",
                retry_after_s=RETRY_AFTER_S,
            )
        return share

    def shrink(self, share: Share, size_bytes: int) -> None:
        """Give back what a share that is had has beyond `size_bytes`."""
        if share in self._held and size_bytes < share.size_bytes:
            self.held_bytes -= share.size_bytes - size_bytes
            share.size_bytes = size_bytes
            self._grant()

    def give_back(self, share: Share) -> None:
        """Return what a share has, or take it out of the queue; idempotent."""
        if share in self._held:
            del self._held[share]
            self.held_bytes -= share.size_bytes
        elif not share.granted and share in self._waiting:
            self._waiting.remove(share)
        self._grant()

    def _grant(self) -> None:
        while self._waiting:
            share = self._waiting[0]
            if self._held and self.held_bytes + share.size_bytes > self._limit_bytes:
                return
            self._waiting.popleft()
            self._held[share] = None
            self.held_bytes += share.size_bytes
            share.granted = True
            share.on_granted()
