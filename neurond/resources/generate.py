"""`POST /generate`: canonical request in, canonical events out, one JSON object per line."""

from typing import Final

from falcon.asgi import Request, Response

from cortex_core.canonical import GenerateRequest, SamplingParams
from cortex_core.sampling_limits import check_choices, check_sampling
from neurond.node import Node
from neurond.resources.http import (
    decode,
    note_request_id,
    read_body,
    while_connected,
    write_events,
)


class GenerateResource:
    """The stream that gateways read. An error before the first event is the whole answer."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def on_post(self, req: Request, resp: Response) -> None:
        """Take a `GenerateRequest`, answer with its events."""
        body = await read_body(req, max_mb=self._node.config.limits.max_body_mb)
        request = decode(body, GenerateRequest)
        note_request_id(req, request.request_id)
        check_sampling(request.sampling, names=_SAMPLING_NAMES)
        check_choices(request.n)
        request = self._node.addressed(request)
        batches = await while_connected(req, self._node.generation.start_batches(request))
        write_events(req, resp, batches)


_SAMPLING_NAMES: Final = {field: f"sampling.{field}" for field in SamplingParams.__struct_fields__}
