"""`GET /v1/models` and `/v1/models/{id}`, in the shape of either family of clients."""

import msgspec
from falcon.asgi import Request, Response
from msgspec import UNSET

from cortex_core.capabilities import can_generate
from cortex_core.dialects.base import JSON_TYPE
from cortex_core.dialects.model_lists import (
    FleetFacts,
    ModelEntry,
    ModelLocation,
    anthropic_model,
    anthropic_models,
    models_dialect,
    openai_model,
    openai_models,
    page_from,
)
from cortex_core.errors import ModelNotFound
from cortexd.fleet.index import ANTHROPIC, ANTHROPIC_PREFIX, CLAUDE, FleetIndex
from cortexd.fleet.protocol import ModelView, ReplicaView
from cortexd.resources.errors import dialect_of
from cortexd.resources.fleet_view import FleetView
from cortexd.resources.request_ids import request_id_of


class ModelsResource:
    """The catalogue over the nodes that are there, and every alias of something in it.

    `created` is what entries carry as the time they were made: seconds since 1970, the start of
    this gateway.
    """

    def __init__(self, fleet: FleetView, created: int) -> None:
        self._fleet = fleet
        self._created = created

    async def on_get(self, req: Request, resp: Response) -> None:
        """List everything that can be asked for by name."""
        index = self._fleet.index()
        resp.content_type = JSON_TYPE
        resp.set_headers(dialect_of(req).response_headers(request_id_of(req)))
        if models_dialect(req.headers) == "anthropic":
            page = page_from(_query(req))
            resp.data = anthropic_models(anthropic_entries(index, self._created), page)
        else:
            resp.data = openai_models(list_entries(index, self._created))


class ModelResource:
    """One entry of that list. An id may have slashes in it."""

    def __init__(self, fleet: FleetView, created: int) -> None:
        self._fleet = fleet
        self._created = created

    async def on_get(self, req: Request, resp: Response, model: str) -> None:
        """Show one model, under the name that it was asked for by."""
        index = self._fleet.index()
        view = index.models.get(self._fleet.resolve(model))
        if view is None:
            raise ModelNotFound(f"cannot find model {model!r}: not in the catalogue", param="model")
        entry = _entry(model, view, index, self._created)
        resp.content_type = JSON_TYPE
        resp.set_headers(dialect_of(req).response_headers(request_id_of(req)))
        if models_dialect(req.headers) == "anthropic":
            resp.data = anthropic_model(entry)
        else:
            resp.data = openai_model(entry)


def list_entries(index: FleetIndex, created: int) -> list[ModelEntry]:
    """Return models by id, then aliases and tiers by name."""
    tiers = {f"{CLAUDE}-{line}": target for line, target in index.snapshot.tiers.items()}
    others = {**tiers, **index.snapshot.aliases}
    names = [(str(model), model) for model in sorted(index.models)] + sorted(others.items())
    return [
        _entry(name, index.models[target], index, created)
        for name, target in names
        if target in index.models
    ]


def anthropic_entries(index: FleetIndex, created: int) -> list[ModelEntry]:
    """Return that list for Anthropic's clients: what generates is there under a second name.

    By it Claude Code shows a model that is not called like one of Anthropic's. No name is there
    twice, or clients that page by names would go round for ever.
    """
    entries = list_entries(index, created)
    names = {entry.id for entry in entries}
    shown = [
        msgspec.structs.replace(
            entry, id=f"{ANTHROPIC_PREFIX}{entry.id}", display_name=entry.display_name or entry.id
        )
        for entry in entries
        if not entry.id.startswith((CLAUDE, ANTHROPIC)) and can_generate(entry.capabilities)
        if f"{ANTHROPIC_PREFIX}{entry.id}" not in names
    ]
    return entries + shown


def _entry(name: str, view: ModelView, index: FleetIndex, created: int) -> ModelEntry:
    replicas = list(index.replicas_of(view.id))
    return ModelEntry(
        id=name,
        created=created,
        owned_by=view.owned_by,
        max_input_tokens=view.limit.input or view.limit.context,
        max_output_tokens=view.limit.output,
        capabilities=view.capabilities,
        line=index.tier_of(name),
        facts=FleetFacts(
            loaded=any(replica.status == "ready" for replica in replicas),
            feasible_on=view.feasible_on,
            locations=tuple(_location(replica, view) for replica in replicas),
            limit=view.limit,
            embedding=view.embedding or UNSET,
            alias_of=view.id if name != view.id else UNSET,
            cost=UNSET if view.cost is None else view.cost,
        ),
    )


def _query(req: Request) -> dict[str, str]:
    given = {name: req.get_param(name) for name in ("limit", "after_id", "before_id")}
    return {name: text for name, text in given.items() if text is not None}


def _location(replica: ReplicaView, view: ModelView) -> ModelLocation:
    used_mb = replica.vram_used_mb or view.vram_estimate_mb
    return ModelLocation(replica.node, replica.status, used_mb)
