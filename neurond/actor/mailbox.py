"""What a helper thread has for the loop, with a descriptor that wakes the loop."""

import queue
from typing import Generic, TypeVar

from cortex_core.ipc.bell import Bell

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Any thread puts, the loop's thread takes; nothing blocks.

    Attributes:
        wakeup_fd: readable while `take` has something to return.
    """

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._bell = Bell()
        self.wakeup_fd = self._bell.fd

    def put(self, item: T) -> None:
        """Leave something for the loop."""
        self._items.put(item)
        self._bell.ring()

    def take(self) -> list[T]:
        """Return what was put since the last call, oldest first."""
        if not self._bell.answer():
            return []
        items = []
        while not self._items.empty():
            items.append(self._items.get())
        return items
