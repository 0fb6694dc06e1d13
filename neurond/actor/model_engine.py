"""The engines of the models in memory, one for each kind of work that a model can do."""

from collections.abc import Callable

from neurond.actor.backend import ServedModel
from neurond.actor.requests import Place
from neurond.engine.embedding import EmbeddingEngine
from neurond.engine.engine import Engine
from neurond.protocol import KvUsage


class ModelEngine:
    """One engine of a loaded model, and how to make another."""

    def __init__(
        self, place: Place, model: ServedModel, new_engine: Callable[[], Engine | EmbeddingEngine]
    ) -> None:
        self.place = place
        self.model = model
        self.engine = new_engine()
        self.failed_steps = 0
        self.told_usage: KvUsage | None = None
        self._new_engine = new_engine

    def renew(self) -> None:
        """Go on with a fresh engine."""
        self.engine = self._new_engine()

    def usage(self) -> KvUsage | None:
        """Return how K/V blocks are used; None for an engine that has none."""
        if not isinstance(self.engine, Engine):
            return None
        scheduler = self.engine.scheduler
        return KvUsage(
            self.place.model_id,
            scheduler.num_available_blocks,
            scheduler.num_cached_blocks,
            scheduler.num_preemptions,
            scheduler.num_drafted_tokens,
            scheduler.num_accepted_tokens,
        )

    def make_resident(self) -> bool:
        """Make a piece of memory resident for later steps; return whether there was one to make."""
        make = self.model.make_resident
        return (
            make is not None
            and isinstance(self.engine, Engine)
            and make(self.engine.scheduler.frontier)
        )


def engines_of(model: ServedModel) -> list[ModelEngine]:
    """Make an engine for each kind of work that the model can do."""
    found = []
    model_id, embedder = model.loaded.model_id, model.embedder
    if model.new_engine is not None:
        found.append(ModelEngine(Place(model_id, "generate"), model, model.new_engine))
    if embedder is not None:
        place = Place(model_id, "embed")
        found.append(ModelEngine(place, model, lambda: EmbeddingEngine(embedder)))
    return found
