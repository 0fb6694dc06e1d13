"""`POST /v1/embeddings`."""

import asyncio

import msgspec
from falcon.asgi import Request, Response

from cortex_core.dialects.base import JSON_TYPE
from cortex_core.dialects.openai_embeddings import DecodedEmbedding, OpenAIEmbeddings
from cortex_core.errors import CortexError
from cortex_core.senders import sent_by
from cortexd.embedding import EmbeddingGateway
from cortexd.resources.request_body import read_body
from cortexd.resources.request_ids import request_id_of


class EmbeddingsResource:
    """Vectors, in OpenAI's dialect. A client that leaves cancels the request."""

    def __init__(self, dialect: OpenAIEmbeddings, gateway: EmbeddingGateway) -> None:
        self._dialect = dialect
        self._gateway = gateway

    async def on_post(self, req: Request, resp: Response) -> None:
        """Answer with all vectors; errors get the dialect's form from the application."""
        try:
            decoded = await self._read(req)
        except CortexError as error:
            self._gateway.refused(error)
            raise
        try:
            answer = await self._gateway.embed(decoded.request, req.path)
        except CortexError:
            resp.context.logged = True  # by the gateway, which knows the node
            raise
        pieces = []
        for piece in self._dialect.encode_answer(decoded, answer):
            pieces.append(piece)
            await asyncio.sleep(0)  # thousands of numbers a piece: others have their turn
        resp.content_type = JSON_TYPE
        resp.set_headers(self._dialect.response_headers(decoded.request.request_id))
        resp.data = b"".join(pieces)

    async def _read(self, req: Request) -> DecodedEmbedding:
        body = await read_body(req)
        decoded = self._dialect.decode_request(body, request_id=request_id_of(req))
        request = self._gateway.prepare(sent_by(req, decoded.request))
        return msgspec.structs.replace(decoded, request=request)
