"""A client of the gateway that sees every byte and when it came."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

from cortexd.http1.errors import ConnectFailed, ConnectionLost
from cortexd.http1.exchange import Exchange
from cortexd.http1.message import parse_endpoint
from cortexd.http1.pool import ConnectionPool
from tests.fakes.waiting import WAIT_S


class Answer:
    """One answer, its body read as it comes."""

    def __init__(self, exchange: Exchange, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        self._exchange = exchange

    async def chunks(self) -> AsyncIterator[bytes]:
        while (chunk := await self._exchange.read(WAIT_S)) != b"":
            assert chunk is not None, f"nothing came for {WAIT_S} s"
            yield chunk

    async def body(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])

    async def json(self) -> Any:
        return json.loads(await self.body())

    async def until(self, text: str) -> str:
        """Read until `text` has come; return everything so far."""
        seen = ""
        async for chunk in self.chunks():
            seen += chunk.decode()
            if text in seen:
                return seen
        raise AssertionError(f"{text!r} never came: {seen}")

    def leave(self) -> None:
        """Close the connection, as a client does that is stopped."""
        self._exchange.close()


class GatewayClient:
    """One connection after another; nothing is retried but a stale keep-alive."""

    def __init__(self, base_url: str) -> None:
        self._origin = parse_endpoint(base_url)
        self._pool = ConnectionPool()
        self._open: list[Answer] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for answer in self._open:
            answer.leave()
        self._pool.close()

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        data = json.dumps(body).encode() if isinstance(body, Mapping) else body
        sent = {"content-type": "application/json", **(headers or {})}
        exchange = Exchange(self._pool, self._origin, method, path, body=data, headers=sent)
        head = await exchange.head(WAIT_S)
        assert head is not None, f"no answer to {method} {path} for {WAIT_S} s"
        answer = Answer(exchange, head.status, head.headers)
        self._open.append(answer)
        return answer

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.request("GET", path, headers=headers)

    async def chat(self, *, stream: bool = True, model: str = "small", **fields: Any) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        return await self.request("POST", "/v1/chat/completions", {**body, **fields})

    async def messages(self, *, stream: bool = True, model: str = "small", **fields: Any) -> Answer:
        body = {
            "model": model,
            "max_tokens": 100,
            "messages": [{"role": "user", "content": "hi"}],
            "stream": stream,
        }
        return await self.request("POST", "/v1/messages?beta=true", {**body, **fields})

    async def wait_ready(self, *, nodes: int = 0) -> None:
        """Return once `/health` says ok, and that so many nodes have answered."""
        pause = asyncio.Event()
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            try:
                answer = await self.get("/health")
                told = await answer.body()
                if answer.status == 200 and json.loads(told)["healthy_nodes"] >= nodes:
                    return
            except (ConnectFailed, ConnectionLost):
                pass
            try:
                await asyncio.wait_for(pause.wait(), 0.05)
            except TimeoutError:
                continue
        raise AssertionError(f"the gateway was not ready within {WAIT_S} s")


def texts_of(sse: str) -> str:
    """The visible text of an OpenAI chat or an Anthropic stream."""
    text = ""
    for line in sse.splitlines():
        if not line.startswith("data: {"):
            continue
        data = json.loads(line.removeprefix("data: "))
        for choice in data.get("choices", ()):
            text += choice.get("delta", {}).get("content") or ""
        if data.get("type") == "content_block_delta":
            text += data["delta"].get("text", "")
    return text
