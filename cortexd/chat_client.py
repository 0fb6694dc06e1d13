"""Asks a running gateway over HTTP, as any OpenAI client would; for the terminal."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import msgspec

from cortex_core.decoding import UNDECODABLE
from cortex_core.errors import (
    CortexError,
    ErrorInfo,
    ModelNotFound,
    NodeUnavailable,
    ProtocolError,
    error_from_info,
)
from cortexd.http1.errors import ConnectFailed, ConnectionLost, TooManyConnections
from cortexd.http1.exchange import Exchange
from cortexd.http1.message import ResponseHead, parse_endpoint
from cortexd.http1.pool import ConnectionPool

SILENCE_S: Final = 30.0
"""A gateway says something each second; after so much silence it counts as gone."""
_OK: Final = 200
_DONE: Final = b"[DONE]"
"""Last event of every answer that is whole."""


class Turn(msgspec.Struct, frozen=True):
    """One message of a conversation."""

    role: str
    content: str


class Said(msgspec.Struct, frozen=True):
    """More of the answer."""

    text: str


class Busy(msgspec.Struct, frozen=True):
    """Nothing of the answer yet; what the gateway says it is doing."""

    doing: str


class Spent(msgspec.Struct, frozen=True):
    """Tokens of the whole exchange, at its end."""

    prompt_tokens: int
    completion_tokens: int


Piece = Said | Busy | Spent


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _WireError(msgspec.Struct):
    message: str
    code: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: Spent | None = None
    error: _WireError | None = None


class _Model(msgspec.Struct):
    id: str
    loaded: bool = False


class _Models(msgspec.Struct):
    data: list[_Model]


class ChatClient:
    """One gateway. Close it when done; use it on one event loop."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._origin = parse_endpoint(base_url)
        self._pool = ConnectionPool()

    def close(self) -> None:
        """Drop every connection, and with it what is being answered on it."""
        self._pool.close()

    async def pick_model(self) -> str:
        """Return a model to talk to: one that is loaded, else the first there is.

        Raises:
            ModelNotFound: the gateway has no models.
            ProtocolError: what answers is no gateway.
            CortexError: it cannot be asked.
        """
        exchange = Exchange(self._pool, self._origin, "GET", "/v1/models", headers={})
        try:
            head = await self._head(exchange)
            body = await self._body(exchange)
        finally:
            exchange.close()
        if head.status != _OK:
            raise self._refusal(head, body)
        try:
            models = msgspec.json.decode(body, type=_Models).data
        except UNDECODABLE as error:
            raise self._unusable(f"/v1/models holds no list of models ({error})") from error
        if not models:
            raise ModelNotFound(f"cannot chat: {self._base_url} has no models", param="model")
        return next((model.id for model in models if model.loaded), models[0].id)

    async def ask(
        self,
        model: str,
        turns: list[Turn],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """Yield the answer as it comes. Closing the generator stops it on the node as well.

        Args:
            model: id or alias.
            turns: the conversation so far; the last turn is the user's.
            max_tokens: longest answer; None leaves it to the model's context.
            temperature: 0 is greedy; None leaves it to the model's profile.

        Raises:
            ProtocolError: what answers is no gateway, or the answer has no end.
            CortexError: what the gateway answered instead, or NodeUnavailable where it is away.
        """
        body = {
            "model": model,
            "messages": turns,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        exchange = Exchange(
            self._pool,
            self._origin,
            "POST",
            "/v1/chat/completions",
            body=msgspec.json.encode(body),
            headers={"content-type": "application/json"},
        )
        try:
            head = await self._head(exchange)
            if head.status != _OK:
                raise self._refusal(head, await self._body(exchange))
            async with aclosing(self._pieces(exchange)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            exchange.close()

    async def _pieces(self, exchange: Exchange) -> AsyncGenerator[Piece, None]:
        rest, done = b"", False
        while chunk := await self._read(exchange):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                done = done or _data(line) == _DONE
                for piece in self._said(line):
                    yield piece
        if not done:
            raise self._unusable("the stream ended without [DONE]")

    def _said(self, line: bytes) -> list[Piece]:
        try:
            return _read_line(line)
        except UNDECODABLE as error:
            raise self._unusable(f"an event cannot be read ({error})") from error

    async def _head(self, exchange: Exchange) -> ResponseHead:
        try:
            head = await exchange.head(SILENCE_S)
        except (ConnectFailed, ConnectionLost, TooManyConnections) as error:
            raise self._away(str(error)) from error
        if head is None:
            raise self._away(f"silent for {SILENCE_S:g} s")
        return head

    async def _read(self, exchange: Exchange) -> bytes:
        try:
            chunk = await exchange.read(SILENCE_S)
        except ConnectionLost as error:
            raise self._away(str(error)) from error
        if chunk is None:
            raise self._away(f"silent for {SILENCE_S:g} s")
        return chunk

    async def _body(self, exchange: Exchange) -> bytes:
        data = b""
        while chunk := await self._read(exchange):
            data += chunk
        return data

    def _away(self, cause: str) -> NodeUnavailable:
        return NodeUnavailable(f"cannot talk to the gateway at {self._base_url}: {cause}")

    def _refusal(self, head: ResponseHead, body: bytes) -> CortexError:
        try:
            error = msgspec.json.decode(body, type=_Chunk).error
        except UNDECODABLE:
            error = None
        return self._unusable(f"status {head.status}") if error is None else _as_error(error)

    def _unusable(self, cause: str) -> ProtocolError:
        return ProtocolError(
            f"cannot use the answer of {self._base_url}: {cause}; is that a gateway?"
        )


def _read_line(line: bytes) -> list[Piece]:
    """Return what one line of the event stream says; what is no event says nothing."""
    if line.startswith(b":"):
        doing = line[1:].strip().decode()
        return [Busy(doing)] if doing.startswith("loading") else []
    data = _data(line)
    if not data.startswith(b"{"):
        return []
    chunk = msgspec.json.decode(data, type=_Chunk)
    if chunk.error is not None:
        raise _as_error(chunk.error)
    said: list[Piece] = [
        Said(choice.delta.content) for choice in chunk.choices if choice.delta.content
    ]
    return [*said, chunk.usage] if chunk.usage is not None else said


def _data(line: bytes) -> bytes:
    return line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""


def _as_error(error: _WireError) -> CortexError:
    return error_from_info(ErrorInfo(error.code or "internal_error", error.message))
