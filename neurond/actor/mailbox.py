"""What a helper thread has for the loop, with a descriptor that wakes the loop."""

import os
import queue
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Any thread puts, the loop's thread takes; nothing blocks.

    Attributes:
        wakeup_fd: readable while `take` has something to return.
    """

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[T] = queue.SimpleQueue()
        self.wakeup_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def put(self, item: T) -> None:
        """Leave something for the loop."""
        self._items.put(item)
        os.eventfd_write(self.wakeup_fd, 1)

    def take(self) -> list[T]:
        """Return what was put since the last call, oldest first."""
        try:
            os.eventfd_read(self.wakeup_fd)
        except BlockingIOError:
            return []
        items = []
        while not self._items.empty():
            items.append(self._items.get())
        return items
