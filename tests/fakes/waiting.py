"""Bounded waits on a condition, for tests that watch real processes."""

import asyncio
import threading
import time
from collections.abc import Callable

POLL_S = 0.01
WAIT_S = 60.0
"""For what takes milliseconds on a machine with nothing else to do."""
LIFE_SIGN_S = 10.0
"""Between two signs of life on a stream: the promised second, and what a busy machine adds."""


def wait_until(predicate: Callable[[], object], *, timeout_s: float = WAIT_S) -> None:
    """Return when `predicate` is true; fail the test after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not predicate():
        assert time.monotonic() < deadline, f"not true within {timeout_s} s: {predicate}"
        pause.wait(POLL_S)


async def wait_until_async(predicate: Callable[[], object], *, timeout_s: float = WAIT_S) -> None:
    """Return when `predicate` is true, leaving the loop free; fail the test after `timeout_s`."""
    never = asyncio.Event()

    async def poll() -> None:
        while not predicate():
            try:
                await asyncio.wait_for(never.wait(), POLL_S)
            except TimeoutError:
                continue

    try:
        await asyncio.wait_for(poll(), timeout_s)
    except TimeoutError:
        raise AssertionError(f"not true within {timeout_s} s: {predicate}") from None
