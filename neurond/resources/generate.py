"""`POST /generate`: canonical request in, canonical events out, one JSON object per line."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import msgspec
from falcon.asgi import Request, Response

from cortex_core.asgi import until_disconnected
from cortex_core.canonical import Event, GenerateRequest, SamplingParams
from cortex_core.owned_events import OwnedEvents
from cortex_core.sampling_limits import check_choices, check_sampling
from neurond.node import Node
from neurond.resources.http import decode, read_body, until_gone, while_connected

NDJSON_TYPE: Final = "application/x-ndjson"
_encoder = msgspec.json.Encoder()


class GenerateResource:
    """The stream that gateways read. An error before the first event is the whole answer."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def on_post(self, req: Request, resp: Response) -> None:
        """Take a `GenerateRequest`, answer with its events."""
        body = await read_body(req, max_mb=self._node.config.limits.max_body_mb)
        request = decode(body, GenerateRequest)
        check_sampling(request.sampling, names=_SAMPLING_NAMES)
        check_choices(request.n)
        request = self._node.addressed(request)
        batches = await while_connected(req, self._node.generation.start_batches(request))
        resp.content_type = NDJSON_TYPE
        lines = OwnedEvents(_lines(batches), batches)
        resp.stream = until_disconnected(lines, until_gone(req))


async def _lines(batches: AsyncGenerator[list[Event], None]) -> AsyncGenerator[bytes, None]:
    """Yield what is there at a time as one piece: each is a chunk and a write of its own."""
    async with aclosing(batches):
        async for events in batches:
            yield _encoder.encode_lines(events)


_SAMPLING_NAMES: Final = {field: f"sampling.{field}" for field in SamplingParams.__struct_fields__}
