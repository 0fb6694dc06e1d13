"""A few threads for text work that would hold up the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from cortex_core.errors import Overloaded

MAX_PENDING: Final = 256
RETRY_AFTER_S: Final = 1.0
T = TypeVar("T")


class TextPool:
    """Runs functions in threads, at most `MAX_PENDING` of them waiting or running.

    Used from one event loop. Whoever stops waiting leaves the function to finish by itself.
    """

    def __init__(self, threads: int, *, max_pending: int = MAX_PENDING) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="text")
        self._max_pending = max_pending
        self._pending = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns.

        Raises:
            Overloaded: too many are waiting.
            Exception: what `work` raises.
        """
        if self._pending >= self._max_pending:
            raise Overloaded(
                f"cannot prepare the prompt: {self._pending} others are waiting",
                retry_after_s=RETRY_AFTER_S,
            )
        self._pending += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def close(self) -> None:
        """Stop taking work; does not wait for what runs."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _done(self, future: "asyncio.Future[T]") -> None:
        self._pending -= 1
        if not future.cancelled():
            future.exception()  # taken note of; whoever still waits gets it raised
