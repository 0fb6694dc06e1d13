"""Streams that run until they are stopped, for what is measured while they do."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from bench.serve.stream import StreamResult
from bench.serve.target import Target

MAX_TOKENS: Final = 2000
POLL_S: Final = 0.01


class StreamEnded(Exception):
    """A stream ended that should have gone on; its result has the same words as its error."""


class RunningStreams:
    """One stream for each text, from the beginning of a `async with` to its end."""

    def __init__(self, target: Target, texts: Sequence[str]) -> None:
        self.results = [StreamResult() for _ in texts]
        self._target = target
        self._texts = texts
        self._tasks: list[asyncio.Task[StreamResult]] = []

    async def __aenter__(self) -> Self:
        for text, result in zip(self._texts, self.results, strict=True):
            call = self._target.complete(text, MAX_TOKENS, into=result)
            self._tasks.append(asyncio.create_task(call))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def have(self, num_chunks: int) -> None:
        """Return once each stream has got so many chunks.

        Raises:
            StreamEnded: one has ended.
        """
        while min(len(result.chunk_times) for result in self.results) < num_chunks:
            self.check()
            await asyncio.sleep(POLL_S)

    async def have_more(self, num_chunks: int) -> None:
        """Return once each stream has got so many chunks more than any of them has now."""
        await self.have(max(len(result.chunk_times) for result in self.results) + num_chunks)

    def check(self) -> None:
        """Do nothing while all run.

        Raises:
            StreamEnded: one has ended.
        """
        ended = [r for t, r in zip(self._tasks, self.results, strict=True) if t.done()]
        for result in ended:
            result.error = result.error or (
                f"a stream ended before the measurement: it had {result.tokens} tokens"
            )
        if ended:
            raise StreamEnded(ended[0].error)
