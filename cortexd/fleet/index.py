"""A `FleetSnapshot` made quick to ask. Pure; used by HTTP workers and by the fleet actor."""

from collections.abc import Iterable
from difflib import get_close_matches

from cortex_core.errors import ModelNotFound
from cortex_core.ids import ModelId, NodeName, ReplicaId
from cortexd.fleet.protocol import FleetSnapshot, ModelView, NodeView, ReplicaView

NEAR_MATCHES = 3


class FleetIndex:
    """Lookups over one snapshot. Immutable, as the snapshot is."""

    def __init__(self, snapshot: FleetSnapshot) -> None:
        self.snapshot = snapshot
        self.models: dict[ModelId, ModelView] = {model.id: model for model in snapshot.models}
        self.nodes: dict[NodeName, NodeView] = {node.name: node for node in snapshot.nodes}
        self.replicas: dict[ReplicaId, ReplicaView] = {r.id: r for r in snapshot.replicas}
        self._by_model: dict[ModelId, list[ReplicaView]] = {}
        for replica in snapshot.replicas:
            self._by_model.setdefault(replica.model_id, []).append(replica)

    def replicas_of(self, model_id: ModelId) -> Iterable[ReplicaView]:
        """Return every replica of the model, whatever its status."""
        return self._by_model.get(model_id, ())

    def resolve(self, text: str) -> ModelId:
        """Return the model that a client means by `text`.

        In this order: an alias, a model id, a name in the default scheme.

        Raises:
            ModelNotFound: nothing of that name is in the catalogue or on a node; the message
                names what is near.
        """
        name = text.strip()
        aliased = self.snapshot.aliases.get(name)
        if aliased is not None:
            return self._known(aliased, asked=f"{name!r}, an alias of {aliased!r}")
        if ":" not in name:
            name = f"{self.snapshot.default_scheme}:{name}"
        return self._known(ModelId(name), asked=repr(text.strip()))

    def _known(self, model_id: ModelId, *, asked: str) -> ModelId:
        if model_id in self.models:
            return model_id
        raise ModelNotFound(
            f"cannot find model {asked}: not in the catalogue and on no node{self._hint(model_id)}",
            param="model",
        )

    def _hint(self, model_id: ModelId) -> str:
        by_short: dict[str, str] = {}
        for known in (*self.models, *self.snapshot.aliases):
            by_short[known.rpartition(":")[2].lower()] = known
            by_short[known.lower()] = known
        wanted = model_id.lower()
        found = [
            *get_close_matches(wanted.rpartition(":")[2], by_short, NEAR_MATCHES),
            *get_close_matches(wanted, by_short, NEAR_MATCHES),
        ]
        near = list(dict.fromkeys(by_short[match] for match in found))[:NEAR_MATCHES]
        return f"; near: {', '.join(near)}" if near else ""
