"""The server under test, and how it is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.serve.stream import StreamResult, stream_completion


@dataclass(frozen=True)
class Target:
    """A server under test. `extra` is merged into every request body."""

    url: str
    model: str
    api: str
    pids: Sequence[int]
    extra: dict[str, Any]
    timeout_s: float
    context_tokens: int | None = None
    """The longest sequence that it takes; None where that is not known."""

    async def complete(
        self,
        prompt: str,
        max_tokens: int,
        *,
        system: str = "",
        sampling: dict[str, Any] | None = None,
        into: StreamResult | None = None,
    ) -> StreamResult:
        """Send one request and time its stream.

        Args:
            sampling: fields of the request; greedy without them.
            into: filled as the stream runs, for who wants to look before its end.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **(sampling or {"temperature": 0}),
            **self.extra,
        }
        if self.api == "completions":
            body["prompt"] = f"{system}\n{prompt}" if system else prompt
            path = "/v1/completions"
        else:
            turns = [{"role": "system", "content": system}] if system else []
            body["messages"] = [*turns, {"role": "user", "content": prompt}]
            path = "/v1/chat/completions"
        return await stream_completion(self.url, path, body, timeout_s=self.timeout_s, into=into)
