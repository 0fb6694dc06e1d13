"""Wakes another process, or the loop of another thread: an eventfd.

One rings, one listens; rings that nobody has answered yet are one. A ring says only that there is
something to look at, in shared memory or in a queue, which was put there before.
"""

import os


class Bell:
    """Owns `fd`; `close` gives it back.

    Attributes:
        fd: readable while a ring is unanswered; reaches another process as one of `pass_fds`.
    """

    def __init__(self, fd: int | None = None) -> None:
        """Make a bell, or take over the descriptor of one that another process made."""
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if fd is None else fd

    def ring(self) -> None:
        """Wake who listens. Never blocks."""
        os.eventfd_write(self.fd, 1)

    def answer(self) -> bool:
        """Take note of every ring so far, before looking; False if there was none. Never blocks."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)
