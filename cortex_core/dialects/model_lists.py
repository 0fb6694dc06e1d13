"""`GET /v1/models`, in the shape of either family of clients."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from cortex_core.canonical import JsonObject
from cortex_core.dialects.reading import refuse

DEFAULT_LIMIT = 20
MAX_LIMIT = 1000


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model, or an alias of one, as clients see it."""

    id: str
    created: int
    """Seconds since 1970."""
    owned_by: str = "cortex"
    display_name: str | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    extra: JsonObject = {}
    """Further members, such as `loaded`; clients skip what they do not know."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What part of an Anthropic list a client asks for; at most one of the ids is set."""

    limit: int = DEFAULT_LIMIT
    after_id: str | None = None
    before_id: str | None = None


def models_dialect(headers: Mapping[str, str]) -> Literal["openai", "anthropic"]:
    """Return whose shape the caller reads; only Anthropic's clients send these headers."""
    names = {name.lower() for name in headers}
    return "anthropic" if names & {"anthropic-version", "x-api-key"} else "openai"


def openai_models(entries: Sequence[ModelEntry]) -> bytes:
    """Return the whole list for OpenAI's clients."""
    data = [_openai_json(entry) for entry in entries]
    return msgspec.json.encode({"object": "list", "data": data})


def openai_model(entry: ModelEntry) -> bytes:
    """Return one model for OpenAI's clients."""
    return msgspec.json.encode(_openai_json(entry))


def anthropic_models(entries: Sequence[ModelEntry], page: Page) -> bytes:
    """Return a page of the list for Anthropic's clients.

    Raises:
        InvalidRequest: `page` is out of range or starts at a model that is not listed.
    """
    start, end = _bounds([entry.id for entry in entries], page)
    shown = entries[start:end]
    more = start > 0 if page.before_id is not None else end < len(entries)
    return msgspec.json.encode(
        {
            "data": [_anthropic_json(entry) for entry in shown],
            "has_more": more,
            "first_id": shown[0].id if shown else None,
            "last_id": shown[-1].id if shown else None,
        }
    )


def anthropic_model(entry: ModelEntry) -> bytes:
    """Return one model for Anthropic's clients."""
    return msgspec.json.encode(_anthropic_json(entry))


def page_from(query: Mapping[str, str]) -> Page:
    """Return the page that a query string asks for.

    Raises:
        InvalidRequest: `limit` is no number from 1 to `MAX_LIMIT`, or both ids are set.
    """
    text = query.get("limit", str(DEFAULT_LIMIT))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise refuse("limit", f"expected 1 to {MAX_LIMIT}, got {text!r}")
    page = Page(limit=limit, after_id=query.get("after_id"), before_id=query.get("before_id"))
    if page.after_id is not None and page.before_id is not None:
        raise refuse("before_id", "cannot be combined with after_id")
    return page


def _bounds(ids: list[str], page: Page) -> tuple[int, int]:
    if page.before_id is not None:
        end = _place(ids, page.before_id, "before_id")
        return max(0, end - page.limit), end
    start = 0 if page.after_id is None else _place(ids, page.after_id, "after_id") + 1
    return start, min(len(ids), start + page.limit)


def _place(ids: list[str], wanted: str, param: str) -> int:
    try:
        return ids.index(wanted)
    except ValueError:
        raise refuse(param, f"there is no model {wanted!r}") from None


def _openai_json(entry: ModelEntry) -> dict[str, Any]:
    own = {
        "id": entry.id,
        "object": "model",
        "created": entry.created,
        "owned_by": entry.owned_by,
    }
    return entry.extra | own


def _anthropic_json(entry: ModelEntry) -> dict[str, Any]:
    own: dict[str, Any] = {
        "type": "model",
        "id": entry.id,
        "display_name": entry.display_name or entry.id,
        "created_at": datetime.fromtimestamp(entry.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": entry.max_input_tokens,
        "max_tokens": entry.max_output_tokens,
    }
    return entry.extra | own
