"""Pings under way to one actor."""

import asyncio

from cortex_core.errors import CortexError


class Pings:
    """Matches answers to questions by number. Lives on the supervisor's loop."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._count = 0

    def begin(self) -> tuple[int, asyncio.Future[None]]:
        """Return a new number, and what resolves with its answer."""
        self._count += 1
        answer = self._waiting[self._count] = asyncio.get_running_loop().create_future()
        return self._count, answer

    def end(self, number: int) -> None:
        """Forget a question, answered or not."""
        self._waiting.pop(number, None)

    def answered(self, number: int) -> None:
        """Take an answer; one that nobody waits for any more is dropped."""
        answer = self._waiting.get(number)
        if answer is not None and not answer.done():
            answer.set_result(None)

    def fail_all(self, error: CortexError) -> None:
        """The actor is gone."""
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(error)
