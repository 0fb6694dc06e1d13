"""`GET /v1/models`, in the shape of either family of clients."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from cortex_core.dialects.anthropic_capabilities import ModelCapabilities, capabilities_of
from cortex_core.dialects.reading import refuse
from cortex_core.ids import ModelId
from cortex_core.neuron_api import EmbeddingSizes, ModelLimit

DEFAULT_LIMIT = 20
MAX_LIMIT = 1000


class ModelLocation(msgspec.Struct, frozen=True):
    """A replica of a model, or one on its way."""

    node: str
    status: str
    vram_estimate_mb: int | None


class FleetFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a fleet tells of a model beside the members that clients know, in either shape."""

    loaded: bool | UnsetType = UNSET
    feasible_on: tuple[str, ...] | UnsetType = UNSET
    """Nodes that could run it."""
    locations: tuple[ModelLocation, ...] | UnsetType = UNSET
    limit: ModelLimit | UnsetType = UNSET
    embedding: EmbeddingSizes | UnsetType = UNSET
    """Of a model that gives vectors, while it is loaded."""
    alias_of: ModelId | UnsetType = UNSET
    cost: dict[str, float] | UnsetType = UNSET


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model, or another name of one, as clients see it."""

    id: str
    created: int
    """Seconds since 1970."""
    owned_by: str = "cortex"
    display_name: str | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    capabilities: tuple[str, ...] = ()
    """In the words of `NodeModel.capabilities`; nothing where no node knows yet."""
    line: str | None = None
    """The line of Anthropic's models that it stands for."""
    facts: FleetFacts = FleetFacts()


class OpenAIModel(FleetFacts, frozen=True, kw_only=True):
    """A model in OpenAI's shape."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    capabilities: tuple[str, ...]


class OpenAIModels(msgspec.Struct, frozen=True, kw_only=True):
    """The whole list in OpenAI's shape."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]


class AnthropicModel(FleetFacts, frozen=True, kw_only=True):
    """A model in Anthropic's shape."""

    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: str
    lifecycle: Literal["active"] = "active"
    line: str | None
    max_input_tokens: int | None
    max_tokens: int | None
    capabilities: ModelCapabilities | None


class AnthropicModels(msgspec.Struct, frozen=True):
    """A page of the list in Anthropic's shape."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


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
    return msgspec.json.encode(OpenAIModels(data=[_openai(entry) for entry in entries]))


def openai_model(entry: ModelEntry) -> bytes:
    """Return one model for OpenAI's clients."""
    return msgspec.json.encode(_openai(entry))


def anthropic_models(entries: Sequence[ModelEntry], page: Page) -> bytes:
    """Return a page of the list for Anthropic's clients.

    Raises:
        InvalidRequest: `page` is out of range or starts at a model that is not listed.
    """
    start, end = _bounds([entry.id for entry in entries], page)
    shown = [_anthropic(entry) for entry in entries[start:end]]
    return msgspec.json.encode(
        AnthropicModels(
            data=shown,
            has_more=start > 0 if page.before_id is not None else end < len(entries),
            first_id=shown[0].id if shown else None,
            last_id=shown[-1].id if shown else None,
        )
    )


def anthropic_model(entry: ModelEntry) -> bytes:
    """Return one model for Anthropic's clients."""
    return msgspec.json.encode(_anthropic(entry))


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


def _openai(entry: ModelEntry) -> OpenAIModel:
    return OpenAIModel(
        id=entry.id,
        created=entry.created,
        owned_by=entry.owned_by,
        capabilities=entry.capabilities,
        **msgspec.structs.asdict(entry.facts),
    )


def _anthropic(entry: ModelEntry) -> AnthropicModel:
    return AnthropicModel(
        id=entry.id,
        display_name=entry.display_name or entry.id,
        created_at=datetime.fromtimestamp(entry.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        line=entry.line,
        max_input_tokens=entry.max_input_tokens,
        max_tokens=entry.max_output_tokens,
        capabilities=capabilities_of(entry.capabilities) if entry.capabilities else None,
        **msgspec.structs.asdict(entry.facts),
    )
