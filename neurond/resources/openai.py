"""The node's own OpenAI dialect: `/v1/chat/completions`, `/v1/completions`, `/v1/models`."""

import logging
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing

from falcon.asgi import Request, Response
from msgspec import UNSET

from cortex_core.asgi import until_disconnected
from cortex_core.canonical import Event, GenerateRequest
from cortex_core.dialects.base import JSON_TYPE, SSE_TYPE, Dialect, ResponseEncoder
from cortex_core.dialects.left_out import left_out_headers
from cortex_core.dialects.model_lists import FleetFacts, ModelEntry, openai_models
from cortex_core.errors import CortexError, ErrorInfo
from cortex_core.ids import RequestId
from cortex_core.joined_events import joined
from cortex_core.logs import kv
from cortex_core.owned_events import OwnedEvents
from cortex_core.senders import sent_by
from cortex_core.sse_stream import sse_chunks
from neurond.generation import Generation
from neurond.node import Node
from neurond.resources.http import (
    log_refused,
    read_body,
    request_id_of,
    until_gone,
    while_connected,
)

_log = logging.getLogger(__name__)


class DialectResource:
    """One route of one dialect. The model has to be loaded; loading on demand is the gateway's."""

    def __init__(self, node: Node, dialect: Dialect) -> None:
        self._node = node
        self._dialect = dialect

    async def on_post(self, req: Request, resp: Response) -> None:
        """Answer in the dialect, errors included."""
        request_id = request_id_of(req)
        try:
            await self._answer(req, resp, request_id)
        except CortexError as ex:
            log_refused(req, ex.info())
            write_dialect_error(resp, self._dialect, ex.info(), request_id)

    async def _answer(self, req: Request, resp: Response, request_id: RequestId) -> None:
        body = await read_body(req, max_mb=self._node.config.limits.max_body_mb)
        decoded = self._dialect.decode_request(body, request_id=request_id)
        if decoded.ignored:
            left_out = kv(request_id=request_id, ignored=",".join(decoded.ignored))
            _log.debug("parts of the request left out", extra=left_out)
        requests = [self._node.addressed(sent_by(req, each)) for each in decoded.requests()]
        encoder = self._dialect.encoder(decoded, created=int(time.time()))
        resp.set_headers(left_out_headers(decoded))
        resp.set_headers(self._dialect.response_headers(request_id))
        starting = self._start(requests)
        if decoded.stream:
            events = await while_connected(req, starting)
            resp.content_type = SSE_TYPE
            resp.set_header("cache-control", "no-cache")
            chunks = OwnedEvents(sse_chunks(events, encoder, clock=time.monotonic), events)
            resp.stream = until_disconnected(chunks, until_gone(req))
        else:
            resp.content_type = JSON_TYPE
            resp.data = await while_connected(req, _whole(starting, encoder))

    async def _start(self, requests: list[GenerateRequest]) -> AsyncGenerator[Event, None]:
        """Start the first request, whose error can be the whole answer, and the others with it."""
        generation = self._node.generation
        first = await generation.start(requests[0])
        if len(requests) == 1:
            return first
        others = [_events_of(generation, request) for request in requests[1:]]
        return joined([first, *others], choices=requests[0].n)


def write_dialect_error(
    resp: Response, dialect: Dialect, error: ErrorInfo, request_id: RequestId
) -> None:
    """Answer with an error in a dialect's form."""
    reply = dialect.encode_error(error, request_id=request_id)
    resp.status = reply.status
    resp.content_type = JSON_TYPE
    resp.set_headers(reply.headers)
    resp.data = reply.body


class OpenAIModelsResource:
    """The models that are in memory now."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._created = int(time.time())

    async def on_get(self, _req: Request, resp: Response) -> None:
        """Answer with OpenAI's list."""
        entries = [
            ModelEntry(
                id=model.id,
                created=self._created,
                owned_by="neuron",
                capabilities=tuple(model.capabilities),
                facts=FleetFacts(limit=model.limit, embedding=model.embedding or UNSET),
            )
            for model in self._node.models().models
            if model.status == "ready"
        ]
        resp.content_type = JSON_TYPE
        resp.data = openai_models(entries)


async def _events_of(
    generation: Generation, request: GenerateRequest
) -> AsyncGenerator[Event, None]:
    async with aclosing(await generation.start(request)) as events:
        async for event in events:
            yield event


async def _whole(
    starting: Awaitable[AsyncGenerator[Event, None]], encoder: ResponseEncoder
) -> bytes:
    async with aclosing(await starting) as events:
        async for event in events:
            encoder.feed(event)
    return encoder.body()
