"""A streamed answer of the OpenAI dialect, read line by line, with the time of each line."""

import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import httpx


class SseStream:
    """Opens a chat stream; `read` and `rest` take what comes. Leaving the block disconnects.

    Attributes:
        text: of the first choice, so far.
        keepalives: comments so far, without their colon.
        longest_silence_s: between two reads that brought bytes; from the request to the first too.
    """

    def __init__(
        self, client: httpx.Client, body: dict[str, Any], *, path: str = "/v1/chat/completions"
    ) -> None:
        self._opening = client.stream("POST", path, json={**body, "stream": True})
        self.text = ""
        self.chunks = 0
        self.keepalives: list[str] = []
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self.done = False
        self.longest_silence_s = 0.0

    def __enter__(self) -> Self:
        self._last_s = time.monotonic()
        self.response = self._opening.__enter__()
        assert self.response.status_code == 200, self.response.read()
        self._lines = self.response.iter_lines()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opening.__exit__(kind, error, trace)

    def read(self, chunks: int) -> Self:
        """Return once so many more chunks with text have come, or the answer has ended."""
        wanted = self.chunks + chunks
        while self.chunks < wanted and not self.done:
            self.line()
        return self

    def rest(self) -> Self:
        """Return at the end of the answer."""
        while not self.done:
            self.line()
        return self

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Read to the end while the block runs, and wait for the end after it."""
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(self.rest)
            yield
            ended.result()

    def line(self) -> None:
        """Take one line; the answer must not have ended."""
        line = next(self._lines)
        now_s = time.monotonic()
        self.longest_silence_s = max(self.longest_silence_s, now_s - self._last_s)
        self._last_s = now_s
        if line.startswith(":"):
            self.keepalives.append(line[1:].strip())
        elif line == "data: [DONE]":
            self.done = True
        elif line.startswith("data: "):
            self._take(json.loads(line.removeprefix("data: ")))

    def _take(self, chunk: dict[str, Any]) -> None:
        self.error = chunk.get("error", self.error)
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk.get("choices", []):
            delta = choice.get("delta", {}).get("content") or choice.get("text") or ""
            self.text += delta
            self.chunks += bool(delta)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
