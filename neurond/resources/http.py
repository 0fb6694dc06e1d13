"""What every route needs: reading bodies, writing JSON, events and errors, noticing who left."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import msgspec
from falcon.asgi import Request, Response

from cortex_core.asgi import DISCONNECTED, until_disconnected
from cortex_core.decoding import UNDECODABLE
from cortex_core.dialects.base import JSON_TYPE
from cortex_core.errors import ErrorInfo, InvalidRequest, status_of
from cortex_core.ids import RequestId, new_request_id
from cortex_core.logs import kv
from cortex_core.owned_events import OwnedEvents
from cortex_core.request_body import read_bounded
from cortex_core.sizes import MIB

NDJSON_TYPE: Final = "application/x-ndjson"
T = TypeVar("T")
_log = logging.getLogger(__name__)
_REQUEST_ID: Final = "request_id"
_encoder = msgspec.json.Encoder()


class ClientGone(Exception):
    """The client left before the answer was ready; nobody reads what is sent now."""


def note_request_id(req: Request, request_id: RequestId) -> None:
    """Have the log name a request as who sent it does."""
    req.context[_REQUEST_ID] = request_id


def request_id_of(req: Request) -> RequestId:
    """Return the id of a request: one for answer, error and log."""
    request_id: RequestId | None = req.context.get(_REQUEST_ID)
    if request_id is None:
        request_id = req.context[_REQUEST_ID] = new_request_id()
    return request_id


def log_refused(req: Request, error: ErrorInfo) -> None:
    """Tell the log of a request that is answered with an error; its id, if one is known by now."""
    request_id = req.context.get(_REQUEST_ID)
    told = kv(request_id=request_id, path=req.path, code=error.code, cause=error.message)
    _log.info("request refused", extra=told)


async def read_body(req: Request, *, max_mb: int) -> bytes:
    """Return the request's body.

    Raises:
        CortexError: see `read_bounded`; it has at most `max_mb` MiB.
        ClientGone: the client left while sending it.
    """
    declared = req.content_length
    body = await read_bounded(req.stream, declared, max_mb * MIB)
    if declared is not None and len(body) < declared:
        raise ClientGone
    return body


def decode(body: bytes, kind: type[T]) -> T:
    """Return a body as a typed object.

    Raises:
        InvalidRequest: it is no JSON, or not of this type; `param` is the field at fault.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as ex:
        field = _field_of(str(ex))
        raise InvalidRequest(f"cannot read request: {ex}", param=field) from ex
    except UNDECODABLE as ex:
        raise InvalidRequest(f"cannot read request: the body is not JSON: {ex}") from ex


async def while_connected(req: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; cancel it as soon as the client leaves.

    Raises:
        ClientGone: it left.
        Exception: what `work` raises.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(req).wait())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def until_gone(req: Request) -> asyncio.Event:
    """Return the event that is set when the client leaves."""
    return _disconnected(req)


def model_in(path_segment: str) -> str:
    """Return the model id in a path segment, see `neurond.api.RawModelPaths`."""
    return unquote(path_segment)


def write_json(resp: Response, value: object, *, status: int = 200) -> None:
    """Answer with an object that msgspec can encode."""
    resp.status = status
    resp.content_type = JSON_TYPE
    resp.data = msgspec.json.encode(value)


def write_events(
    req: Request, resp: Response, batches: AsyncGenerator[Sequence[msgspec.Struct], None]
) -> None:
    """Answer with canonical events, a line each; `batches` is closed when the client leaves."""
    resp.content_type = NDJSON_TYPE
    resp.stream = until_disconnected(OwnedEvents(_lines(batches), batches), until_gone(req))


def write_error(resp: Response, error: ErrorInfo, *, status: int | None = None) -> None:
    """Answer with an error in the form of the node's own routes."""
    write_json(resp, {"error": error}, status=status_of(error) if status is None else status)
    if error.retry_after_s is not None:
        resp.set_header("retry-after", str(max(1, round(error.retry_after_s))))


async def _lines(
    batches: AsyncGenerator[Sequence[msgspec.Struct], None],
) -> AsyncGenerator[bytes, None]:
    """Yield what is there at a time as one piece: each is a chunk and a write of its own."""
    async for events in batches:
        yield _encoder.encode_lines(events)


def _disconnected(req: Request) -> asyncio.Event:
    event: asyncio.Event = req.scope[DISCONNECTED]
    return event


def _field_of(message: str) -> str | None:
    """Return the JSON path that msgspec names, as `sampling.top_p`."""
    _, found, path = message.rpartition(" - at `$.")
    return path.rstrip("`") if found else None
