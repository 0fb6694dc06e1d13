"""The routes that generate: one resource, made once for each dialect."""

import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing

from falcon.asgi import Request, Response

from cortex_core.canonical import Event, Failed, GenerateRequest
from cortex_core.dialects.base import JSON_TYPE, SSE_TYPE, Decoded, Dialect, ResponseEncoder
from cortex_core.dialects.left_out import left_out_headers
from cortex_core.errors import CortexError, error_from_info
from cortex_core.ids import RequestId
from cortex_core.logs import kv
from cortex_core.senders import sent_by
from cortexd.gateway import Gateway
from cortexd.resources.request_body import read_body
from cortexd.resources.request_ids import request_id_of
from cortexd.resources.sse_body import SseBody, first_of

log = logging.getLogger(__name__)


class GenerationResource:
    """`POST` of one dialect. The dialect is chosen here, once, and used at both ends."""

    def __init__(self, dialect: Dialect, gateway: Gateway, clock: Callable[[], float]) -> None:
        self._dialect = dialect
        self._gateway = gateway
        self._clock = clock

    async def on_post(self, req: Request, resp: Response) -> None:
        """Answer a request. A client that leaves cancels this task, and with it all below."""
        request_id = request_id_of(req)
        try:
            decoded, requests = await self._read(req, request_id)
        except CortexError as error:
            self._gateway.refused(error)
            raise
        resp.set_headers(left_out_headers(decoded))
        encoder = self._dialect.encoder(decoded, created=int(time.time()))
        resp.set_headers(self._dialect.response_headers(request_id))
        events = self._gateway.generate_together(requests, req.path)
        await answer(resp, events, encoder, stream=decoded.stream, clock=self._clock)

    async def _read(
        self, req: Request, request_id: RequestId
    ) -> tuple[Decoded, list[GenerateRequest]]:
        body = await read_body(req)
        decoded = self._dialect.decode_request(body, request_id=request_id)
        log_ignored(decoded)
        requests = [sent_by(req, request) for request in decoded.requests()]
        return decoded, [self._gateway.prepare(request) for request in requests]


def log_ignored(decoded: Decoded) -> None:
    """Log what was left out of a request, if anything was."""
    if decoded.ignored:
        request_id = decoded.request.request_id
        left_out = kv(request_id=request_id, ignored=",".join(decoded.ignored))
        log.debug("parts of the request left out", extra=left_out)


async def answer(
    resp: Response,
    events: AsyncGenerator[Event, None],
    encoder: ResponseEncoder,
    *,
    stream: bool,
    clock: Callable[[], float],
    told_in_stream: Collection[str] = (),
) -> None:
    """Answer with what `encoder` makes of `events`, which are closed however that ends.

    `told_in_stream` are codes of errors that a stream tells as its only event, with status 200.
    """
    if stream:
        await _streamed(resp, events, encoder, clock, told_in_stream)
    else:
        await _whole(resp, events, encoder)


async def _streamed(
    resp: Response,
    events: AsyncGenerator[Event, None],
    encoder: ResponseEncoder,
    clock: Callable[[], float],
    told_in_stream: Collection[str],
) -> None:
    try:
        first = await first_of(events, clock)
        if isinstance(first, Failed) and first.error.code not in told_in_stream:
            resp.context.logged = True  # by the gateway, which knows the node
            raise error_from_info(first.error)
    except BaseException:
        await events.aclose()
        raise
    resp.content_type = SSE_TYPE
    resp.set_header("cache-control", "no-cache")
    # Reverse proxies such as nginx would otherwise collect the stream.
    resp.set_header("x-accel-buffering", "no")
    resp.stream = SseBody(first, events, encoder, clock)


async def _whole(
    resp: Response, events: AsyncGenerator[Event, None], encoder: ResponseEncoder
) -> None:
    async with aclosing(events):
        async for event in events:
            encoder.feed(event)
            if isinstance(event, Failed):
                resp.context.logged = True
    resp.content_type = JSON_TYPE
    resp.data = encoder.body()
