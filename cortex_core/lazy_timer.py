"""A time limit for waits that follow one another and mostly end early.

A timer of the loop for each wait is made and cancelled thousands of times a second while tokens
come. Here one is left to run: when it goes off too early, it is set again for what is left.
"""

import asyncio
from collections.abc import Callable


class LazyTimer:
    """One wait at a time; belongs to the loop that runs when it is made.

    A wait that ends early is not taken back: what is called then has to find nothing to do.
    """

    def __init__(self, on_expiry: Callable[[], None]) -> None:
        """`on_expiry` is called on the loop, once for each `start` that no other follows in time.

        Keeps what it calls alive for as long as the longest time that it was started with.
        """
        self._on_expiry = on_expiry
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._goes_off_at = 0.0
        self._expires_at = 0.0

    def start(self, timeout_s: float) -> None:
        """Begin a wait of `timeout_s` at most."""
        self._expires_at = self._loop.time() + timeout_s
        if self._handle is None or self._expires_at < self._goes_off_at:
            self._set(self._expires_at)

    def _set(self, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._goes_off_at = at
        self._handle = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._handle = None
        if self._loop.time() < self._expires_at:
            self._set(self._expires_at)
        else:
            self._on_expiry()
