"""Gives up a client that has stopped reading: what it holds is a place that others wait for."""

import asyncio
from types import TracebackType
from typing import Final, Self

STALLED_S: Final = 300.0
"""How long a client may leave a piece of its answer unread."""
_LOOKS: Final = 4
"""How often in that time it is looked at: a timer for each piece would cost more."""


class StallWatch:
    """Cancels the task it is entered in if one `handed` is not followed by `taken` in time.

    Belongs to the loop it is entered on, and is silent again once it is left.
    """

    def __init__(self, stalled_s: float = STALLED_S) -> None:
        self._stalled_s = stalled_s
        self._handed_at: float | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._look()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._next_look.cancel()

    def handed(self) -> None:
        """The server has a piece to send, and waits until there is room for it."""
        self._handed_at = self._loop.time()

    def taken(self) -> None:
        """The server has got rid of the piece."""
        self._handed_at = None

    def _look(self) -> None:
        handed_at = self._handed_at
        if handed_at is not None and self._loop.time() - handed_at >= self._stalled_s:
            assert self._task is not None, "the watch was entered outside of a task"
            self._task.cancel()
            return
        self._next_look = self._loop.call_later(self._stalled_s / _LOOKS, self._look)
