"""Vectors: `POST /embed` for gateways, `POST /v1/embeddings` in OpenAI's dialect."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing

from falcon.asgi import Request, Response

from cortex_core.canonical_embedding import EmbedAnswer, EmbedEvent, EmbedRequest
from cortex_core.dialects.base import JSON_TYPE
from cortex_core.dialects.openai_embeddings import OpenAIEmbeddings
from cortex_core.embedding_answer import collect_embeddings
from cortex_core.embedding_limits import check_embedding
from cortex_core.senders import sent_by
from neurond.guarded_events import one_by_one
from neurond.node import Node
from neurond.resources.http import (
    decode,
    note_request_id,
    read_body,
    request_id_of,
    while_connected,
    write_events,
)

_Batches = AsyncGenerator[list[EmbedEvent], None]


class EmbedResource:
    """The stream that gateways read. An error before the first event is the whole answer."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def on_post(self, req: Request, resp: Response) -> None:
        """Take an `EmbedRequest`, answer with its events."""
        body = await read_body(req, max_mb=self._node.config.limits.max_body_mb)
        request = decode(body, EmbedRequest)
        note_request_id(req, request.request_id)
        check_embedding(request, param="inputs")
        request = self._node.addressed(request)
        batches = await while_connected(req, self._node.embedding.start(request))
        write_events(req, resp, batches)


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
        request = self._node.addressed(sent_by(req, decoded.request))
        starting = self._node.embedding.start(request)
        answer = await while_connected(req, _whole(starting, len(request.inputs)))
        pieces = []
        for piece in self._dialect.encode_answer(decoded, answer):
            pieces.append(piece)
            await asyncio.sleep(0)  # thousands of numbers a piece: others have their turn
        resp.content_type = JSON_TYPE
        resp.set_headers(self._dialect.response_headers(request_id))
        resp.data = b"".join(pieces)


async def _whole(starting: Awaitable[_Batches], num_inputs: int) -> EmbedAnswer:
    async with aclosing(one_by_one(await starting)) as events:
        return await collect_embeddings(events, num_inputs)
