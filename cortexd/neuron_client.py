"""The gateway's side of a neuron's HTTP API: canonical requests out, canonical events back.

One client per event loop. Whatever goes wrong comes out as a `CortexError`: what the node says of
itself as it says it, everything between here and there as `NodeUnavailable`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import Final, TypeVar
from urllib.parse import quote

import msgspec

from cortex_core import __version__
from cortex_core.canonical import (
    TERMINAL_EVENTS,
    CountTokensRequest,
    CountTokensResponse,
    Event,
    GenerateRequest,
    Ping,
)
from cortex_core.canonical_embedding import EmbedEvent, EmbedRequest
from cortex_core.decoding import UNDECODABLE
from cortex_core.dialects.reading import write_json
from cortex_core.errors import (
    CortexError,
    ErrorInfo,
    NodeUnavailable,
    Overloaded,
    ProtocolError,
    Timeout,
    error_from_info,
)
from cortex_core.ids import DeviceName, ModelId, RequestId
from cortex_core.neuron_api import (
    Discovery,
    Health,
    LoadRequest,
    LoadResponse,
    ModelsResponse,
    RestartRequest,
    RestartResponse,
    UnloadRequest,
    UnloadResponse,
)
from cortexd.http1.errors import ConnectFailed, ConnectionLost, TooManyConnections
from cortexd.http1.exchange import Exchange
from cortexd.http1.message import Origin, ResponseHead, parse_endpoint
from cortexd.http1.pool import ConnectionPool
from cortexd.ndjson import EventLines

MAX_JSON_BYTES: Final = 16 * 1024 * 1024
"""Longest JSON answer of a node that is read."""
RETRY_AFTER_S: Final = 2.0
"""What clients are told when a node is away: a poll later another one may have taken over."""

_OK: Final = 200
_UNAVAILABLE: Final = 503
_T = TypeVar("_T")
_EVENTS: Final[msgspec.json.Decoder[Event]] = msgspec.json.Decoder(Event)
_EMBED_EVENTS: Final[msgspec.json.Decoder[EmbedEvent]] = msgspec.json.Decoder(EmbedEvent)


class ClientTimeouts(msgspec.Struct, frozen=True):
    """Bounds of the client's waits, in seconds. None of them is a total one on a stream."""

    tick_s: float = 0.5
    """After so much silence `generate` yields a `Ping`; half of what clients are promised."""
    idle_s: float = 30.0
    """A node pings twice a second; after so much silence of its own it counts as gone."""
    poll_s: float = 5.0
    load_s: float = 1800.0
    unload_s: float = 120.0
    restart_s: float = 600.0
    count_s: float = 30.0


class _ErrorBody(msgspec.Struct):
    error: ErrorInfo


class NeuronClient:
    """Speaks to every node of the fleet. Safe to use from many tasks of one loop at once."""

    def __init__(
        self,
        *,
        pool: ConnectionPool | None = None,
        timeouts: ClientTimeouts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool or ConnectionPool()
        self._timeouts = timeouts or ClientTimeouts()
        self._clock = clock
        self._origins: dict[str, Origin] = {}

    def close(self) -> None:
        """Drop every connection, in use or not."""
        self._pool.close()

    def generate(self, endpoint: str, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        """Stream one request's events. `Ping` is yielded in every tick of silence.

        Closing the iterator, or cancelling the task in it, aborts the connection at once, which
        cancels the request on the node.

        Raises:
            NodeUnavailable: unreachable, silent for too long, or gone before a terminal event.
            InvalidRequest: the request is nested too deeply.
            CortexError: whatever the node answered instead of a stream.
        """
        return self._stream(endpoint, "/generate", request, EventLines(_EVENTS))

    def embed(self, endpoint: str, request: EmbedRequest) -> AsyncGenerator[EmbedEvent, None]:
        """Stream the vectors of a request, as `generate` does its events. Raises: as `generate`."""
        return self._stream(endpoint, "/embed", request, EventLines(_EMBED_EVENTS))

    async def _stream(
        self,
        endpoint: str,
        target: str,
        request: GenerateRequest | EmbedRequest,
        lines: EventLines[_T],
    ) -> AsyncGenerator[_T | Ping, None]:
        """See `generate`."""
        exchange = self._exchange(endpoint, "POST", target, request, request_id=request.request_id)
        now = self._clock
        silent_s = 0.0
        # One tick over head and body: each may come just before its own would have passed.
        said_at = now()
        try:
            while (head := await exchange.head(self._left(now() - said_at))) is None:
                silent_s = self._more_silence(endpoint, silent_s)
                yield Ping()
                said_at = now()
            if head.status != _OK:
                raise await self._refusal(endpoint, exchange, head)
            while (chunk := await exchange.read(self._left(now() - said_at))) != b"":
                said_at = now()
                if chunk is None:
                    silent_s = self._more_silence(endpoint, silent_s)
                    yield Ping()
                    continue
                silent_s = 0.0
                for event in lines.feed(chunk):
                    if isinstance(event, TERMINAL_EVENTS):
                        exchange.mark_ended()
                        yield event
                        return
                    yield event
            raise NodeUnavailable(
                f"cannot go on with the stream of node {endpoint}: it ended without a last event"
            )
        except (ConnectFailed, ConnectionLost, TooManyConnections) as error:
            raise _translated(endpoint, error) from error
        finally:
            exchange.close()

    async def discovery(self, endpoint: str) -> Discovery:
        """Return what the node is. Raises: NodeUnavailable, Timeout, CortexError."""
        return await self._get(endpoint, "/discovery", Discovery)

    async def health(self, endpoint: str) -> Health:
        """Return how the node is, also while it drains. Raises: as `discovery`."""
        return await self._call(
            endpoint, "GET", "/health", Health, timeout_s=self._timeouts.poll_s, also=_UNAVAILABLE
        )

    async def models(self, endpoint: str) -> ModelsResponse:
        """Return the node's models. Raises: as `discovery`."""
        return await self._get(endpoint, "/models", ModelsResponse)

    async def load(self, endpoint: str, request: LoadRequest) -> LoadResponse:
        """Load a model and return once it is ready. Raises: as `discovery`."""
        return await self._call(
            endpoint,
            "POST",
            "/models/load",
            LoadResponse,
            body=request,
            timeout_s=self._timeouts.load_s,
        )

    async def unload(self, endpoint: str, request: UnloadRequest) -> UnloadResponse:
        """Unload a model and return once its memory is free. Raises: as `discovery`."""
        return await self._call(
            endpoint,
            "POST",
            "/models/unload",
            UnloadResponse,
            body=request,
            timeout_s=self._timeouts.unload_s,
        )

    async def restart_device(
        self, endpoint: str, device: DeviceName, request: RestartRequest
    ) -> RestartResponse:
        """Give an idle device a new process, return once it is ready. Raises: as `discovery`."""
        return await self._call(
            endpoint,
            "POST",
            f"/devices/{quote(device, safe='')}/restart",
            RestartResponse,
            body=request,
            timeout_s=self._timeouts.restart_s,
        )

    async def count_tokens(
        self,
        endpoint: str,
        model_id: ModelId,
        request: CountTokensRequest,
        *,
        timeout_s: float | None = None,
    ) -> CountTokensResponse:
        """Count a prompt's tokens, also for a model that is not loaded. Raises: as `discovery`.

        `timeout_s` takes the place of the usual bound.
        """
        return await self._call(
            endpoint,
            "POST",
            f"/models/{quote(model_id, safe=':')}/count_tokens",
            CountTokensResponse,
            body=request,
            timeout_s=self._timeouts.count_s if timeout_s is None else timeout_s,
        )

    async def _get(self, endpoint: str, target: str, answer: type[_T]) -> _T:
        return await self._call(endpoint, "GET", target, answer, timeout_s=self._timeouts.poll_s)

    async def _call(
        self,
        endpoint: str,
        method: str,
        target: str,
        answer: type[_T],
        *,
        timeout_s: float,
        body: msgspec.Struct | None = None,
        also: int = _OK,
    ) -> _T:
        """Make one JSON call. A status in `also` carries a proper answer too."""
        exchange = self._exchange(endpoint, method, target, body)
        try:
            async with asyncio.timeout(timeout_s):
                while (head := await exchange.head(timeout_s)) is None:
                    continue
                data = await _body(endpoint, exchange)
        except TimeoutError:
            raise Timeout(
                f"cannot finish {method} {target} on node {endpoint}: no answer in {timeout_s:g} s"
            ) from None
        except (ConnectFailed, ConnectionLost, TooManyConnections) as error:
            raise _translated(endpoint, error) from error
        finally:
            exchange.close()
        if head.status not in (_OK, also):
            raise _as_error(endpoint, head.status, data)
        try:
            return msgspec.json.decode(data, type=answer)
        except UNDECODABLE as error:
            if head.status != _OK:
                raise _as_error(endpoint, head.status, data) from error
            raise ProtocolError(
                f"cannot read the answer of node {endpoint} to {method} {target}: {error}"
            ) from error

    def _exchange(
        self,
        endpoint: str,
        method: str,
        target: str,
        body: msgspec.Struct | None = None,
        *,
        request_id: RequestId | None = None,
    ) -> Exchange:
        origin = self._origins.get(endpoint)
        if origin is None:
            origin = self._origins[endpoint] = parse_endpoint(endpoint)
        headers = {"user-agent": f"cortex/{__version__}"}
        if body is not None:
            headers["content-type"] = "application/json"
        if request_id is not None:
            headers["x-request-id"] = request_id
        encoded = None if body is None else write_json(body)
        return Exchange(self._pool, origin, method, target, body=encoded, headers=headers)

    async def _refusal(self, endpoint: str, exchange: Exchange, head: ResponseHead) -> CortexError:
        try:
            async with asyncio.timeout(self._timeouts.poll_s):
                data = await _body(endpoint, exchange)
        except TimeoutError:
            data = b""
        return _as_error(endpoint, head.status, data)

    def _left(self, silent_s: float) -> float:
        """Return what is left of a tick of which `silent_s` have passed."""
        return max(0.0, self._timeouts.tick_s - silent_s)

    def _more_silence(self, endpoint: str, silent_s: float) -> float:
        silent_s += self._timeouts.tick_s
        if silent_s >= self._timeouts.idle_s:
            raise NodeUnavailable(
                f"cannot go on with the stream of node {endpoint}: "
                f"it has been silent for {silent_s:g} s",
                retry_after_s=RETRY_AFTER_S,
            )
        return silent_s


async def _body(endpoint: str, exchange: Exchange) -> bytes:
    """Read a whole body; the caller bounds the time."""
    data = bytearray()
    while (chunk := await exchange.read(1.0)) != b"":
        data += chunk or b""
        if len(data) > MAX_JSON_BYTES:
            raise ProtocolError(
                f"cannot read the answer of node {endpoint}: longer than {MAX_JSON_BYTES} bytes"
            )
    return bytes(data)


def _as_error(endpoint: str, status: int, data: bytes) -> CortexError:
    """Return the error that a node put into its answer, or one that tells its status."""
    try:
        return error_from_info(msgspec.json.decode(data, type=_ErrorBody).error)
    except UNDECODABLE:
        text = data[:200].decode("utf-8", "replace")
        return ProtocolError(f"cannot use the answer of node {endpoint}: status {status}: {text}")


def _translated(
    endpoint: str, error: ConnectFailed | ConnectionLost | TooManyConnections
) -> CortexError:
    if isinstance(error, TooManyConnections):
        return Overloaded(f"cannot reach node {endpoint}: {error}", retry_after_s=RETRY_AFTER_S)
    return NodeUnavailable(f"cannot reach node {endpoint}: {error}", retry_after_s=RETRY_AFTER_S)
