"""The models a node loads by itself at start, one after another, as `/health` shows them."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from cortex_core.errors import CortexError
from cortex_core.ids import ModelId
from cortex_core.logs import kv
from cortex_core.neuron_api import Activation, FailedModel, LoadRequest

_log = logging.getLogger(__name__)


class ActivationRun:
    """Loads in sequence; a model that fails does not stop the next."""

    def __init__(self) -> None:
        self._pending: list[ModelId] = []
        self._in_progress: ModelId | None = None
        self._completed: list[ModelId] = []
        self._failed: list[FailedModel] = []
        self._begun = False

    def state(self) -> Activation:
        busy = bool(self._pending or self._in_progress)
        return Activation(
            state="loading" if busy else "done" if self._begun else "idle",
            pending=list(self._pending),
            in_progress=self._in_progress,
            completed=list(self._completed),
            failed=list(self._failed),
        )

    async def run(
        self, requests: Sequence[LoadRequest], load: Callable[[LoadRequest], Awaitable[object]]
    ) -> None:
        """Load `requests` in order; cancelling stops before the next one."""
        self._begun = True
        self._pending = [request.model_id for request in requests]
        try:
            for request in requests:
                self._in_progress = self._pending.pop(0)
                await self._load(request, load)
        finally:
            self._pending, self._in_progress = [], None

    async def _load(
        self, request: LoadRequest, load: Callable[[LoadRequest], Awaitable[object]]
    ) -> None:
        try:
            await load(request)
        except CortexError as ex:
            _log.error(
                "default model not loaded", extra=kv(model=request.model_id, cause=ex.message)
            )
            self._failed.append(FailedModel(request.model_id, ex.message))
        else:
            self._completed.append(request.model_id)
