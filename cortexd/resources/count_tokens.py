"""`POST /v1/messages/count_tokens`."""

import logging

from falcon.asgi import Request, Response

from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.dialects.base import JSON_TYPE
from cortex_core.logs import kv
from cortexd.resources.fleet_view import FleetView
from cortexd.resources.request_body import read_body
from cortexd.resources.request_ids import request_id_of
from cortexd.token_count import Counting, count_tokens

log = logging.getLogger(__name__)


class CountTokensResource:
    """Answers from a node's tokenizer; loads nothing and queues nowhere."""

    def __init__(self, dialect: AnthropicMessages, fleet: FleetView, nodes: Counting) -> None:
        self._dialect = dialect
        self._fleet = fleet
        self._nodes = nodes

    async def on_post(self, req: Request, resp: Response) -> None:
        """Count the tokens of a prompt that would be sent to `/v1/messages`."""
        decoded = self._dialect.decode_count_tokens(await read_body(req))
        model_id = self._fleet.resolve(decoded.model)
        count = await count_tokens(
            self._nodes,
            self._fleet.index(),
            model_id,
            decoded.prompt,
            report=self._fleet.report_failure,
        )
        request_id = request_id_of(req)
        told = kv(request_id=request_id, path=req.path, model=model_id, prompt_tokens=count)
        log.info("tokens counted", extra=told)
        resp.content_type = JSON_TYPE
        resp.set_headers(self._dialect.response_headers(request_id))
        resp.data = self._dialect.encode_count_tokens(count)
