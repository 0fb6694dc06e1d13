"""A `FleetSnapshot` made quick to ask. Pure; used by HTTP workers and by the fleet actor."""

from collections.abc import Iterable
from difflib import get_close_matches

from cortex_core.errors import ModelNotFound
from cortex_core.ids import ModelId, NodeName, ReplicaId
from cortexd.fleet.protocol import FleetSnapshot, ModelView, NodeView, ReplicaView

NEAR_MATCHES = 3
CLAUDE = "claude"
ANTHROPIC = "anthropic"
ANTHROPIC_PREFIX = f"{ANTHROPIC}/"
"""Claude Code shows only those models of a gateway whose names begin so, or with `claude`."""


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

        In this order: an alias, a model id, a name in the default scheme; each also behind
        `anthropic/`; last the tier of one of Anthropic's own models.

        Raises:
            ModelNotFound: nothing of that name is in the catalogue or on a node; the message
                names what is near.
        """
        asked = text.strip()
        plain = asked.removeprefix(ANTHROPIC_PREFIX)
        for name in dict.fromkeys((asked, plain)):
            if (aliased := self.snapshot.aliases.get(name)) is not None:
                return self._known(aliased, asked=f"{name!r}, an alias of {aliased!r}")
            if self._full(name) in self.models:
                return self._full(name)
        if (line := self.tier_of(plain)) is not None:
            target = self.snapshot.tiers[line]
            return self._known(target, asked=f"{asked!r}, of the tier {line}, {target!r}")
        return self._known(self._full(plain), asked=repr(asked))

    def tier_of(self, name: str) -> str | None:
        """Return the line of Anthropic's models that `name` is of and the fleet answers for."""
        words = name.lower()
        found = (line for line in self.snapshot.tiers if CLAUDE in words and line in words)
        return next(found, None)

    def _full(self, name: str) -> ModelId:
        return ModelId(name if ":" in name else f"{self.snapshot.default_scheme}:{name}")

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
