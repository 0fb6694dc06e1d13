"""`/v1/responses/{id}` and what lies below it: responses that were kept."""

from typing import Any, Final

import msgspec
from falcon.asgi import Request, Response

from cortex_core.canonical import JsonObject
from cortex_core.dialects.base import JSON_TYPE
from cortex_core.dialects.openai_errors import response_headers
from cortex_core.dialects.reading import refuse
from cortexd.resources.request_ids import request_id_of
from cortexd.responses.store import ResponseStore

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100


class StoredResponseResource:
    """One response, as it was answered."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store

    async def on_get(self, req: Request, resp: Response, response_id: str) -> None:
        """Show it, whole."""
        if req.get_param_as_bool("stream"):
            raise refuse("stream", "a response that is kept comes whole")
        row = await self._store.get(response_id)
        _send(req, resp, row.response)

    async def on_delete(self, req: Request, resp: Response, response_id: str) -> None:
        """Forget it. What went on from it can be shown, and no longer be gone on from."""
        await self._store.delete(response_id)
        gone = {"id": response_id, "object": "response", "deleted": True}
        _send(req, resp, msgspec.json.encode(gone))


class CancelResource:
    """Only responses in the background can be cancelled so, and there are none here."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store

    async def on_post(self, _req: Request, _resp: Response, response_id: str) -> None:
        """Say so, where there is such a response."""
        await self._store.get(response_id)
        why = "it is complete; one that is being answered ends when its connection is closed"
        raise refuse("response_id", why)


class InputItemsResource:
    """What a response answers, the conversation before it with it."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store

    async def on_get(self, req: Request, resp: Response, response_id: str) -> None:
        """List the items, the last one first unless `order` is `asc`."""
        order = req.get_param("order") or "desc"
        if order not in ("asc", "desc"):
            raise refuse("order", f"expected asc or desc, got {order!r}")
        items = await self._store.input_items(response_id)
        if order == "desc":
            items.reverse()
        page = _page(items, req.get_param("after"), _limit(req))
        _send(req, resp, msgspec.json.encode(page))


def _limit(req: Request) -> int:
    text = req.get_param("limit") or str(DEFAULT_LIMIT)
    short = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT))
    if not short or not 1 <= int(text) <= MAX_LIMIT:
        raise refuse("limit", f"expected 1 to {MAX_LIMIT}, got {text[:40]!r}")
    return int(text)


def _page(items: list[JsonObject], after: str | None, limit: int) -> dict[str, Any]:
    if after is not None:
        places = [place for place, item in enumerate(items) if item["id"] == after]
        if not places:
            raise refuse("after", f"no item {after!r} is in the list")
        items = items[places[0] + 1 :]
    page = items[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > limit,
    }


def _send(req: Request, resp: Response, body: bytes) -> None:
    resp.content_type = JSON_TYPE
    resp.set_headers(response_headers(request_id_of(req)))
    resp.data = body
