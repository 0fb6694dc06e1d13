"""One streamed completion over a plain socket, timed chunk by chunk.

A client of its own, of the standard library alone: it must cost the same against every server and
as little as can be, since client and server share the machine's cores.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class StreamResult:
    """Times are `time.perf_counter()` seconds; `chunk_times` has one entry per non-empty chunk."""

    started: float = 0.0
    ended: float = 0.0
    chunk_times: list[float] = field(default_factory=list)
    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    error: str | None = None

    @property
    def counted_tokens(self) -> int | None:
        """Output tokens as the server counted them; None before it has said so, at the end."""
        counted = (self.usage or {}).get("completion_tokens")
        return int(counted) if counted else None

    @property
    def tokens(self) -> int:
        """Output tokens as the server counted them, else the number of chunks."""
        return self.counted_tokens or len(self.chunk_times)

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens that the server took from its prefix cache, where it says so."""
        details = (self.usage or {}).get("prompt_tokens_details") or {}
        value = details.get("cached_tokens")
        return None if value is None else int(value)

    @property
    def ttft_s(self) -> float:
        """Seconds to the first chunk with text."""
        return self.chunk_times[0] - self.started

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Tokens after the first one, over the time from first to last chunk.

        None where all came at once, or there was only one.
        """
        if self.tokens < 2 or not self.chunk_times or self.chunk_times[-1] == self.chunk_times[0]:
            return None
        return (self.tokens - 1) / (self.chunk_times[-1] - self.chunk_times[0])

    @property
    def end_to_end_tokens_per_s(self) -> float:
        """All tokens over the whole time from request to the end of the stream."""
        return self.tokens / (self.ended - self.started)

    @property
    def intervals_s(self) -> list[float]:
        """Times between chunks."""
        return [b - a for a, b in zip(self.chunk_times, self.chunk_times[1:], strict=False)]


async def stream_completion(
    url: str,
    path: str,
    body: dict[str, Any],
    *,
    timeout_s: float,
    into: StreamResult | None = None,
) -> StreamResult:
    """POST `body` with stream on and read to the end; failures come back in `error`.

    The result is `into` where that is given. Cancelling closes the connection and leaves in it
    what came.
    """
    result = into or StreamResult()
    result.started = time.perf_counter()
    try:
        async with asyncio.timeout(timeout_s):
            await _exchange(url, path, body, result)
    except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as ex:
        result.error = repr(ex)
    finally:
        result.ended = time.perf_counter()
    if result.error is None and not result.chunk_times:
        result.error = "no tokens"
    return result


async def _exchange(url: str, path: str, body: dict[str, Any], result: StreamResult) -> None:
    parts = urlsplit(url)
    payload = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, limit=1 << 20)
    try:
        head = (
            f"POST {parts.path.rstrip('/')}{path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            "Content-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(payload)}\r\n\r\n"
        )
        result.started = time.perf_counter()
        writer.write(head.encode() + payload)
        status, chunked = await _read_head(reader)
        if status != 200:
            result.error = f"HTTP {status}: {(await reader.read(400)).decode(errors='replace')}"
            return
        await _read_events(reader, chunked, result)
    finally:
        writer.close()


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    return int(head.split(b" ", 2)[1]), b"transfer-encoding: chunked" in head


async def _read_events(reader: asyncio.StreamReader, chunked: bool, result: StreamResult) -> None:
    buffer = b""
    while data := await (_read_chunk(reader) if chunked else reader.read(65536)):
        now = time.perf_counter()
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                _take_event(line[5:].strip(), now, result)


async def _read_chunk(reader: asyncio.StreamReader) -> bytes:
    size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
    return (await reader.readexactly(size + 2))[:-2]


def _take_event(data: bytes, now: float, result: StreamResult) -> None:
    if data == b"[DONE]":
        return
    event = json.loads(data)
    if "error" in event:
        result.error = str(event["error"])[:400]
        return
    result.usage = event.get("usage") or result.usage
    for choice in event.get("choices", []):
        result.finish_reason = choice.get("finish_reason") or result.finish_reason
        text = choice.get("text") or (choice.get("delta") or {}).get("content")
        if text:
            result.chunk_times.append(now)
            result.text += text
