"""The official SDKs on top of bytes that are already there, read as strictly as they can."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai

from cortex_core.canonical import Event
from cortex_core.dialects.base import SSE_TYPE, Decoded, Dialect, Reply
from cortex_core.dialects.openai_completions import OpenAICompletions
from cortex_core.dialects.openai_responses import OpenAIResponses
from tests.unit.cortex_core.dialects.event_streams import MODEL, REQUEST_ID

MESSAGES = [{"role": "user", "content": "hi"}]


class Recorder:
    """Answers every request with the same bytes and keeps what was asked."""

    def __init__(self, reply: Reply, *, content_type: str, chunk_bytes: int) -> None:
        self.requests: list[httpx2.Request] = []
        self._reply = reply
        self._content_type = content_type
        self._chunk_bytes = chunk_bytes

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        headers = self._reply.headers | {"content-type": self._content_type}
        return httpx2.Response(self._reply.status, headers=headers, content=self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        body = self._reply.body
        for start in range(0, len(body), self._chunk_bytes):
            yield body[start : start + self._chunk_bytes]

    @property
    def http(self) -> httpx2.Client:
        return httpx2.Client(transport=httpx2.MockTransport(self))


def recorder(body: bytes | Reply, *, stream: bool = False, chunk_bytes: int = 4096) -> Recorder:
    reply = body if isinstance(body, Reply) else Reply(200, body, {})
    content_type = SSE_TYPE if stream else "application/json"
    return Recorder(reply, content_type=content_type, chunk_bytes=chunk_bytes)


def openai_client(source: Recorder, *, max_retries: int = 0, strict: bool = True) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="key",
        base_url="http://cortex.test/v1",
        http_client=source.http,
        max_retries=max_retries,
        _strict_response_validation=strict,
    )


def anthropic_client(source: Recorder, *, max_retries: int = 0) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key="key",
        base_url="http://cortex.test",
        http_client=source.http,
        max_retries=max_retries,
        _strict_response_validation=True,
    )


def decode(dialect: Dialect, **fields: Any) -> Decoded:
    body: dict[str, Any] = {"model": MODEL, "messages": MESSAGES} | fields
    if isinstance(dialect, OpenAICompletions):
        del body["messages"]
        body.setdefault("prompt", "hi")
    if isinstance(dialect, OpenAIResponses):
        body.setdefault("input", body.pop("messages"))
    return dialect.decode_request(json.dumps(body).encode(), request_id=REQUEST_ID)


def streamed(dialect: Dialect, decoded: Decoded, events: list[Event]) -> bytes:
    encoder = dialect.encoder(decoded, created=1_700_000_000)
    return b"".join(encoder.event(event) for event in events)


def whole(dialect: Dialect, decoded: Decoded, events: list[Event]) -> bytes:
    encoder = dialect.encoder(decoded, created=1_700_000_000)
    for event in events:
        encoder.feed(event)
    return encoder.body()


def frames(body: bytes) -> list[tuple[str | None, dict[str, Any] | str]]:
    """Take a stream apart: the event's name, and its data as JSON where it is JSON."""
    assert body == b"" or body.endswith(b"\n\n")
    out: list[tuple[str | None, dict[str, Any] | str]] = []
    for block in body.decode().removesuffix("\n\n").split("\n\n"):
        lines = block.splitlines()
        if not block or block.startswith(":"):
            assert len(lines) <= 1
            continue
        fields = dict(line.split(": ", 1) for line in lines)
        assert set(fields) <= {"event", "data"}
        assert len(lines) == len(fields)
        data = fields["data"]
        out.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
    return out
