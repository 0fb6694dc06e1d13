"""What the supervisor needs from the rest of the node."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cortex_core.ids import ModelId
from cortex_core.neuron_api import LoadProgress
from neurond.sources.prepared import PreparedModel

ProgressCallback = Callable[[LoadProgress], None]
"""Called on the supervisor's loop, at most ten times a second; must not block or raise."""


class ModelLibrary(Protocol):
    """The models on this node's disk and the sources they come from."""

    async def ensure(self, model_id: ModelId, on_progress: ProgressCallback) -> Path:
        """Return the prepared folder of a model, fetching and preparing it if need be.

        The supervisor calls this once per model at a time. Cancelling it stops a fetch.

        Raises:
            ModelNotFound: no source knows the model.
            ModelLoadFailed: it cannot be fetched or prepared.
        """
        ...

    def prepared(self) -> list[PreparedModel]:
        """Return every model that is complete on disk; cheap enough to call per request."""
        ...
