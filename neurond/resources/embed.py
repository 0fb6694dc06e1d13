"""Vectors: `POST /embed` for gateways, `POST /v1/embeddings` in OpenAI's dialect."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing

import msgspec
from falcon.asgi import Request, Response

from cortex_core.asgi import until_disconnected
from cortex_core.canonical import EmbedAnswer, EmbedEvent, EmbedRequest
from cortex_core.dialects.base import JSON_TYPE
from cortex_core.dialects.openai_embeddings import OpenAIEmbeddings
from cortex_core.embedding_answer import collect_embeddings
from cortex_core.embedding_limits import check_embedding
from cortex_core.owned_events import OwnedEvents
from neurond.node import Node
from neurond.resources.generate import NDJSON_TYPE
from neurond.resources.http import decode, read_body, request_id_of, until_gone, while_connected

_encoder = msgspec.json.Encoder()
_Batches = AsyncGenerator[list[EmbedEvent], None]


class EmbedResource:
    """The stream that gateways read. An error before the first event is the whole answer."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def on_post(self, req: Request, resp: Response) -> None:
        """Take an `EmbedRequest`, answer with its events."""
        body = await read_body(req, max_mb=self._node.config.limits.max_body_mb)
        request = decode(body, EmbedRequest)
        check_embedding(request, param="inputs")
        request = self._node.addressed(request)
        batches = await while_connected(req, self._node.embedding.start(request))
        resp.content_type = NDJSON_TYPE
        lines = OwnedEvents(_lines(batches), batches)
        resp.stream = until_disconnected(lines, until_gone(req))


class EmbeddingsResource:
    """The node's own OpenAI dialect. The model has to be loaded."""

    def __init__(self, node: Node, dialect: OpenAIEmbeddings) -> None:
        self._node = node
        self._dialect = dialect

    async def on_post(self, req: Request, resp: Response) -> None:
        """Answer with all vectors; errors get the dialect's form from the application."""
        request_id = request_id_of(req)
        body = await read_body(req, max_mb=self._node.config.limits.max_body_mb)
        decoded = self._dialect.decode_request(body, request_id=request_id)
        request = self._node.addressed(decoded.request)
        starting = self._node.embedding.start(request)
        answer = await while_connected(req, _whole(starting, len(request.inputs)))
        pieces = []
        for piece in self._dialect.encode_answer(decoded, answer):
            pieces.append(piece)
            await asyncio.sleep(0)  # thousands of numbers a piece: others have their turn
        resp.content_type = JSON_TYPE
        resp.set_headers(self._dialect.response_headers(request_id))
        resp.data = b"".join(pieces)


async def _lines(batches: _Batches) -> AsyncGenerator[bytes, None]:
    async with aclosing(batches):
        async for events in batches:
            yield _encoder.encode_lines(events)


async def _whole(starting: Awaitable[_Batches], num_inputs: int) -> EmbedAnswer:
    async with aclosing(await starting) as batches, aclosing(_one_by_one(batches)) as events:
        return await collect_embeddings(events, num_inputs)


async def _one_by_one(batches: _Batches) -> AsyncGenerator[EmbedEvent, None]:
    async for events in batches:
        for event in events:
            yield event
