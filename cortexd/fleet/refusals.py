"""Why a request cannot be placed and waiting would not help, as the error a client gets. Pure."""

import math
from collections.abc import Iterable, Sequence

from cortex_core.errors import (
    CortexError,
    InvalidRequest,
    ModelLoadFailed,
    ModelNotFound,
    NodeUnavailable,
    OutOfMemory,
    Overloaded,
)
from cortex_core.ids import ModelId
from cortexd.fleet.catalogue import Catalogue
from cortexd.fleet.decisions import RouteRequest
from cortexd.fleet.queues import RETRY_AFTER_S as QUEUED_RETRY_AFTER_S
from cortexd.fleet.records import Node, cause_of
from cortexd.fleet.setbacks import Setbacks
from cortexd.fleet.state import FleetState

RETRY_AFTER_S = 10.0


class Refusals:
    """Finds the cause over one state at one time."""

    def __init__(
        self, state: FleetState, catalogue: Catalogue, setbacks: Setbacks, *, now: float
    ) -> None:
        self._state = state
        self._catalogue = catalogue
        self._setbacks = setbacks
        self._now = now

    def error(self, request: RouteRequest, capable: Sequence[Node]) -> CortexError:
        """Return the error for a request that nothing can be done for.

        `capable` are the nodes that could run the model if nothing else was there.
        """
        if not self._state.nodes:
            return Overloaded(f"cannot load {request.model_id}: no neuron is configured")
        if not capable:
            return self._fits_nowhere(request)
        failed = self._failed_lately(request, capable)
        if failed is not None:
            return failed
        usable = [node for node in capable if node.usable]
        if not usable:
            text = "; ".join(f"{node.name}: {cause_of(node)}" for node in capable)
            return NodeUnavailable(
                f"cannot load {request.model_id}: {text}", retry_after_s=RETRY_AFTER_S
            )
        return Overloaded(self._arithmetic(request, usable), retry_after_s=RETRY_AFTER_S)

    def _fits_nowhere(self, request: RouteRequest) -> CortexError:
        wanted = [n for n in self._state.nodes.values() if request.only_node in (None, n.name)]
        causes = [self._catalogue.cannot_run(self._state, request.model_id, n) for n in wanted]
        text = "; ".join(cause for cause in causes if cause)
        if not wanted:
            text = f"no node is named {request.only_node!r}"
        kind = OutOfMemory if " MB" in text else ModelLoadFailed
        return kind(f"cannot load {request.model_id}: {text}")

    def _failed_lately(self, request: RouteRequest, capable: Iterable[Node]) -> CortexError | None:
        """Return what came of the last tries, with the time after which the next one is made."""
        setbacks = [self._setbacks.on(request.model_id, node.name, self._now) for node in capable]
        kept_away = [setback for setback in setbacks if setback is not None]
        if not kept_away:
            large = [self._setbacks.too_large(request.model_id, n.name, self._now) for n in capable]
            kept_away = [setback for setback in large if setback is not None]
        if not kept_away:
            return None
        first = min(kept_away, key=lambda setback: setback.until)
        if first.until == math.inf:
            return first.error
        return _of_a_load(first.error, max(1.0, round(first.until - self._now, 1)))

    def _arithmetic(self, request: RouteRequest, nodes: Iterable[Node]) -> str:
        need = self._catalogue.need_mb(self._state, request.model_id) or "an unknown number of"
        parts = []
        for node in nodes:
            free = ", ".join(
                f"{d.id} has {self._state.unreserved_mb(node, d.id)} of {d.vram_total_mb} MB free"
                for d in node.devices()
            )
            held = ", ".join(r.model.id for r in self._state.on_node(node.name)) or "nothing"
            parts.append(f"{node.name}: {free or 'no device is ready'}, held by {held}")
        return (
            f"cannot load {request.model_id}: it needs {need} MB and may displace nothing more; "
            f"{'; '.join(parts)}"
        )


def waited_too_long(model_id: ModelId, waited_s: float) -> Overloaded:
    """Return the error for a request that waited as long as it may."""
    return Overloaded(
        f"cannot place the request: no place on {model_id} became free within {waited_s:.0f} s",
        retry_after_s=QUEUED_RETRY_AFTER_S,
    )


def tried_too_often(model_id: ModelId, attempts: int) -> Overloaded:
    """Return the error for a request whose load was decided `attempts` times in a row."""
    return Overloaded(
        f"cannot load {model_id}: tried {attempts} times in a row, the nodes change too fast",
        retry_after_s=QUEUED_RETRY_AFTER_S,
    )


def _of_a_load(error: CortexError, left_s: float) -> CortexError:
    """Return what a client is told of a load that failed; it is tried again in `left_s`."""
    if isinstance(error, ModelNotFound):
        return ModelNotFound(error.message, param="model")
    # What the node calls a wrong request is the load, which the operator's files describe.
    kind = ModelLoadFailed if isinstance(error, InvalidRequest) else type(error)
    return kind(error.message, retry_after_s=left_s)
