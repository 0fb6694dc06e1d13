"""`GET /v1/models` and `/v1/models/{id}`, in the shape of either family of clients."""

from typing import Any

import msgspec
from falcon.asgi import Request, Response

from cortex_core.dialects.base import JSON_TYPE
from cortex_core.dialects.model_lists import (
    ModelEntry,
    anthropic_model,
    anthropic_models,
    models_dialect,
    openai_model,
    openai_models,
    page_from,
)
from cortex_core.errors import ModelNotFound
from cortexd.fleet.index import FleetIndex
from cortexd.fleet.protocol import ModelView, ReplicaView
from cortexd.resources.fleet_view import FleetView


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
        entries = list_entries(self._fleet.index(), self._created)
        resp.content_type = JSON_TYPE
        if models_dialect(req.headers) == "anthropic":
            resp.data = anthropic_models(entries, page_from(_query(req)))
        else:
            resp.data = openai_models(entries)


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
        if models_dialect(req.headers) == "anthropic":
            resp.data = anthropic_model(entry)
        else:
            resp.data = openai_model(entry)


def list_entries(index: FleetIndex, created: int) -> list[ModelEntry]:
    """Return models by id, then aliases by name."""
    models = [_entry(model, index.models[model], index, created) for model in sorted(index.models)]
    aliases = [
        _entry(alias, index.models[target], index, created)
        for alias, target in sorted(index.snapshot.aliases.items())
        if target in index.models
    ]
    return models + aliases


def _entry(name: str, view: ModelView, index: FleetIndex, created: int) -> ModelEntry:
    replicas = list(index.replicas_of(view.id))
    extra: dict[str, Any] = {
        "loaded": any(replica.status == "ready" for replica in replicas),
        "feasible_on": list(view.feasible_on),
        "locations": [_location(replica, view) for replica in replicas],
        "capabilities": list(view.capabilities),
        "limit": msgspec.to_builtins(view.limit),
    }
    if name != view.id:
        extra["alias_of"] = view.id
    if view.cost is not None:
        extra["cost"] = view.cost
    return ModelEntry(
        id=name,
        created=created,
        owned_by=view.owned_by,
        max_input_tokens=view.limit.input or view.limit.context,
        max_output_tokens=view.limit.output,
        extra=extra,
    )


def _query(req: Request) -> dict[str, str]:
    given = {name: req.get_param(name) for name in ("limit", "after_id", "before_id")}
    return {name: text for name, text in given.items() if text is not None}


def _location(replica: ReplicaView, view: ModelView) -> dict[str, Any]:
    return {
        "node": replica.node,
        "status": replica.status,
        "vram_estimate_mb": replica.vram_used_mb or view.vram_estimate_mb,
    }
