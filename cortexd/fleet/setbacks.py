"""What went wrong lately with loads, so that it is not tried again at once. Pure."""

import math
from dataclasses import dataclass

from cortex_core.errors import (
    Conflict,
    CortexError,
    NodeUnavailable,
    OutOfMemory,
    ShuttingDown,
)
from cortex_core.ids import ModelId, NodeName


@dataclass(frozen=True, slots=True)
class Setback:
    """A load that failed. Until `until` it is not tried there again."""

    error: CortexError
    until: float


class Setbacks:
    """Failed loads by model and node, and how often a model's load was decided in a row."""

    def __init__(self, *, retry_s: float, max_attempts: int) -> None:
        self._retry_s = retry_s
        self._max_attempts = max_attempts
        self._failed: dict[tuple[ModelId, NodeName], Setback] = {}
        self._too_large: dict[tuple[ModelId, NodeName], Setback] = {}
        self._attempts: dict[ModelId, int] = {}

    def load_failed(
        self, model_id: ModelId, node: NodeName, error: CortexError, now: float, *, may_evict: bool
    ) -> None:
        """Remember what a failed load says about trying again.

        `may_evict` says that somebody waits for the model whom others may be evicted for.
        """
        match error:
            case Conflict() | NodeUnavailable() | ShuttingDown():
                # The node is asked for its state, and the decision made again.
                pass
            case OutOfMemory():
                self.did_not_fit(model_id, node, error, now, may_evict=may_evict)
            case _:
                self.failed(model_id, node, error, now)

    def failed(self, model_id: ModelId, node: NodeName, error: CortexError, now: float) -> None:
        """Keep the model from this node for a while."""
        self._failed[model_id, node] = Setback(error, now + self._retry_s)
        self._too_large.pop((model_id, node), None)

    def did_not_fit(
        self, model_id: ModelId, node: NodeName, error: CortexError, now: float, *, may_evict: bool
    ) -> None:
        """The node ran out of memory. Once, evicting may help; after that it is a failure.

        The first time is remembered until `start_over` where somebody waits who `may_evict`, else
        for a while; until then nothing goes into free memory there.
        """
        if self.too_large(model_id, node, now) is not None:
            self.failed(model_id, node, error, now)
        else:
            until = math.inf if may_evict else now + self._retry_s
            self._too_large[model_id, node] = Setback(error, until)

    def too_large(self, model_id: ModelId, node: NodeName, now: float) -> Setback | None:
        """Return what says that free memory was not enough there, whatever the estimate is."""
        return _present(self._too_large, (model_id, node), now)

    def on(self, model_id: ModelId, node: NodeName, now: float) -> Setback | None:
        """Return the setback that keeps the model from this node."""
        return _present(self._failed, (model_id, node), now)

    def tried(self, model_id: ModelId) -> None:
        """Count one decision to load the model."""
        self._attempts[model_id] = self._attempts.get(model_id, 0) + 1

    def exhausted(self, model_id: ModelId) -> bool:
        """Say whether the model's load was decided as often in a row as it may be."""
        return self._attempts.get(model_id, 0) >= self._max_attempts

    def start_over(self, model_id: ModelId) -> None:
        """Forget the attempts, because the load succeeded or nobody waits for it any more."""
        self._attempts.pop(model_id, None)
        for key, setback in list(self._too_large.items()):
            if key[0] == model_id and setback.until == math.inf:
                del self._too_large[key]

    def loaded(self, model_id: ModelId, node: NodeName) -> None:
        """Forget everything against the model on this node: it is there."""
        self._failed.pop((model_id, node), None)
        self._too_large.pop((model_id, node), None)
        self.start_over(model_id)


def _present(
    setbacks: dict[tuple[ModelId, NodeName], Setback], key: tuple[ModelId, NodeName], now: float
) -> Setback | None:
    """Return a setback that still holds, and forget one that does not."""
    found = setbacks.get(key)
    if found is not None and found.until <= now:
        del setbacks[key]
        return None
    return found
