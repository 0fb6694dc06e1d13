"""`POST /v1/responses`: answers that are kept, and that go on from what was kept."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final

import msgspec
from falcon.asgi import Request, Response

from cortex_core.canonical import Completed, Event, Ping
from cortex_core.dialects.left_out import left_out_headers
from cortex_core.dialects.openai_responses import (
    DecodedResponse,
    OpenAIResponses,
    ResponseEncoder,
)
from cortex_core.dialects.reading import write_json
from cortex_core.errors import ContextLengthExceeded, CortexError, QueueFull
from cortex_core.ids import RequestId
from cortex_core.senders import sent_by
from cortexd.gateway import Gateway
from cortexd.resources.generation import answer, log_ignored
from cortexd.resources.request_body import read_body
from cortexd.resources.request_ids import request_id_of
from cortexd.responses.database import StoredResponse
from cortexd.responses.store import ResponseStore

PING_S: Final = 0.5
"""Silence while a response is being kept; half of what clients are promised."""
_TOLD_IN_STREAM: Final = (ContextLengthExceeded.code,)
"""codex makes its conversation shorter after `response.failed` of this code, as OpenAI sends it; of
a 400 it only shows the text."""
_TOLD_TO_CODEX: Final = (*_TOLD_IN_STREAM, QueueFull.code)
"""After `response.failed` codex waits as it is told to, and asks again; after a status 429 not
every version does. The SDKs do it the other way round."""


class ResponsesResource:
    """As `GenerationResource`, with the store at both ends."""

    def __init__(
        self,
        dialect: OpenAIResponses,
        gateway: Gateway,
        store: ResponseStore,
        clock: Callable[[], float],
    ) -> None:
        self._dialect = dialect
        self._gateway = gateway
        self._store = store
        self._clock = clock

    async def on_post(self, req: Request, resp: Response) -> None:
        """Answer a request. A client that leaves cancels this task, and keeps nothing."""
        request_id = request_id_of(req)
        try:
            decoded = await self._read(req, request_id)
        except CortexError as error:
            self._gateway.refused(error)
            raise
        encoder = self._dialect.encoder(decoded, created=int(time.time()))
        resp.set_headers(self._dialect.response_headers(request_id))
        resp.set_headers(left_out_headers(decoded))
        events = self._gateway.generate(decoded.request, req.path)
        if decoded.store:
            events = self._kept(events, decoded, encoder)
        await answer(
            resp,
            events,
            encoder,
            stream=decoded.stream,
            clock=self._clock,
            told_in_stream=_TOLD_TO_CODEX if _is_codex(req) else _TOLD_IN_STREAM,
        )

    async def _read(self, req: Request, request_id: RequestId) -> DecodedResponse:
        wire = self._dialect.read(await read_body(req))
        previous_id = wire.previous_response_id
        decoded = self._dialect.decode(
            wire,
            request_id=request_id,
            earlier=await self._store.conversation(previous_id) if previous_id else (),
            stored=await self._store.items(wire.references),
        )
        log_ignored(decoded)
        request = self._gateway.prepare(sent_by(req, decoded.request))
        return msgspec.structs.replace(decoded, request=request)

    async def _kept(
        self,
        events: AsyncGenerator[Event, None],
        decoded: DecodedResponse,
        encoder: ResponseEncoder,
    ) -> AsyncGenerator[Event, None]:
        """Yield `events`, and keep the response before its client hears that it is complete.

        So the client can go on from it at once, whichever worker it comes to. Meanwhile it hears
        signs of life, and the replica is free for others.
        """
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Completed):
                    await events.aclose()
                    row = StoredResponse(
                        id=encoder.response_id,
                        previous_id=decoded.previous_response_id,
                        input=write_json(decoded.items),
                        response=encoder.settled(event),
                    )
                    async with aclosing(_pings_until(self._store.put(row))) as pings:
                        async for ping in pings:
                            yield ping
                yield event


def _is_codex(req: Request) -> bool:
    # `codex_exec`, `codex_cli_rs`, `codex_vscode`, …
    return (req.get_header("originator") or "").startswith("codex")


async def _pings_until(work: Coroutine[Any, Any, None]) -> AsyncGenerator[Ping, None]:
    """Yield a sign of life in every `PING_S` until `work` is done; closing this cancels it."""
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait((task,), timeout=PING_S)
            if not task.done():
                yield Ping()
        task.result()
    finally:
        task.cancel()
