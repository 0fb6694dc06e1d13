"""Carries out loads, unloads and restarts on nodes, and reports what became of them.

Runs in the fleet actor's loop; one task for each load or unload. A load goes on when nobody waits
for it any more. Every `StartLoad` is reported as `LoadDone` or `LoadFailed`, every `StartUnload`
as `Unloaded` or `UnloadFailed`, unless the actor itself is stopped.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Protocol

import msgspec

from cortex_core.errors import Conflict, CortexError, InternalError, ModelNotLoaded
from cortex_core.ids import DeviceName, ModelId, NodeName, ReplicaId
from cortex_core.logs import kv
from cortex_core.neuron_api import (
    LoadRequest,
    LoadResponse,
    RestartRequest,
    RestartResponse,
    UnloadRequest,
    UnloadResponse,
)
from cortexd.fleet.effects import RestartDevice, StartLoad, StartUnload
from cortexd.fleet.events import LoadDone, LoadFailed, RestartEnded, Unloaded, UnloadFailed
from cortexd.fleet.records import Node, Replica

log = logging.getLogger(__name__)

Outcome = LoadDone | LoadFailed | Unloaded | UnloadFailed | RestartEnded


class NodeOrders(Protocol):
    """What is told to a node at this base URL. `cortexd.neuron_client.NeuronClient` has it."""

    async def load(self, endpoint: str, request: LoadRequest) -> LoadResponse: ...
    async def unload(self, endpoint: str, request: UnloadRequest) -> UnloadResponse: ...
    async def restart_device(
        self, endpoint: str, device: DeviceName, request: RestartRequest
    ) -> RestartResponse: ...


class LoadTargets(Protocol):
    """What orders are about, as the fleet knows it while they are carried out."""

    def node(self, name: NodeName) -> Node: ...

    def on_device(self, order: RestartDevice) -> list[Replica]: ...

    def load_request(self, order: StartLoad) -> LoadRequest: ...

    def replica(self, name: ReplicaId) -> tuple[Replica, str, int] | None:
        """Return a replica, its node's base URL and its node's state version."""

    def is_idle(self, replica: Replica) -> bool:
        """Say whether nothing is counted on the replica, by the table as it is now."""


class LoadRunner:
    """Runs loads and unloads side by side."""

    def __init__(
        self, client: NodeOrders, fleet: LoadTargets, report: Callable[[Outcome], None]
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._report = report
        self._tasks: set[asyncio.Task[Outcome]] = set()

    def start_load(self, order: StartLoad) -> None:
        """Carry out a load. The snapshot that shows its victims as leaving is out already."""
        self._spawn(self._load(order))

    def start_unload(self, order: StartUnload) -> asyncio.Task[Outcome]:
        """Carry out an unload. The snapshot that shows the replica as leaving is out already.

        The task ends with what was reported.
        """
        return self._spawn(self._unload(order))

    def start_restart(self, order: RestartDevice) -> None:
        """Carry out a restart. The snapshot that shows its replicas as loading is out already."""
        self._spawn(self._restart(order))

    async def stop(self) -> None:
        """Let go of everything under way; the nodes finish by themselves what they began."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[None, None, Outcome]) -> asyncio.Task[Outcome]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _load(self, order: StartLoad) -> Outcome:
        model_id, node = order.model_id, order.load.node
        log.info(
            "load begins", extra=kv(model=model_id, node=node, evict=",".join(order.load.evict))
        )
        outcome: LoadDone | LoadFailed
        try:
            answer = await self._make_room_and_load(order)
        except Exception as ex:  # noqa: BLE001 - a load that is not reported blocks its model
            error = _as_error(ex, f"load {model_id}")
            log.warning("load failed", extra=kv(model=model_id, node=node, cause=error.message))
            outcome = LoadFailed(model_id, node, error)
        else:
            log.info("load done", extra=kv(model=model_id, node=node))
            outcome = LoadDone(model_id, node, answer.model, answer.state_version)
        self._report(outcome)
        return outcome

    async def _make_room_and_load(self, order: StartLoad) -> LoadResponse:
        request = self._fleet.load_request(order)
        endpoint = self._fleet.node(order.load.node).endpoint
        version = order.load.state_version
        for victim in order.load.evict:
            version = await self._evict(StartUnload(victim), version)
        request = msgspec.structs.replace(request, state_version=version)
        return await self._client.load(endpoint, request)

    async def _unload(self, order: StartUnload) -> Outcome:
        known = self._fleet.replica(order.replica_id)
        version = None if known is None or order.force else known[2]
        outcome: Unloaded | UnloadFailed
        try:
            version = await self._evict(order, version)
        except Exception as ex:  # noqa: BLE001 - a replica that is not reported stays unusable
            error = _as_error(ex, f"unload {order.replica_id}")
            log.warning("unload failed", extra=kv(replica=order.replica_id, cause=error.message))
            outcome = UnloadFailed(order.replica_id, error)
            self._report(outcome)
        else:
            outcome = Unloaded(order.replica_id, version)
        return outcome

    async def _restart(self, order: RestartDevice) -> Outcome:
        node, told = self._fleet.node(order.node), kv(node=order.node, device=order.device)
        log.info("device restart begins", extra=told)
        error: CortexError | None = None
        try:
            if not all(map(self._fleet.is_idle, self._fleet.on_device(order))):
                raise Conflict(f"cannot restart {order.device}: a request went there meanwhile")
            request = RestartRequest(node.state_version)
            await self._client.restart_device(node.endpoint, order.device, request)
        except Exception as ex:  # noqa: BLE001 - what is not reported keeps the node in doubt
            error = _as_error(ex, f"restart {order.device} of {order.node}")
            cause = kv(node=order.node, device=order.device, cause=error.message)
            log.warning("device restart failed", extra=cause)
        else:
            log.info("device restart done", extra=told)
        outcome = RestartEnded(order.node, order.device, error)
        self._report(outcome)
        return outcome

    async def _evict(self, order: StartUnload, version: int | None) -> int:
        """Unload one replica, report it, and return the node's state version after that."""
        name, force = order.replica_id, order.force
        known = self._fleet.replica(name)
        if known is None:
            raise Conflict(f"cannot unload {name}: it is not there any more")
        replica, endpoint, current = known
        if not force and not self._fleet.is_idle(replica):
            raise Conflict(f"cannot unload {name}: a request went there meanwhile")
        model_id: ModelId = replica.model.id
        try:
            only_idle = not (force or order.drain or replica.yielding_to)
            request = UnloadRequest(model_id, force, version, only_idle)
            answer = await self._client.unload(endpoint, request)
        except ModelNotLoaded:
            self._report(Unloaded(name, current))
            raise Conflict(f"cannot unload {name}: the node has unloaded it already") from None
        log.info("unload done", extra=kv(replica=name))
        self._report(Unloaded(name, answer.state_version))
        return answer.state_version


def _as_error(ex: Exception, what: str) -> CortexError:
    if isinstance(ex, CortexError):
        return ex
    log.error("order failed", exc_info=ex)
    return InternalError(f"cannot {what}: {ex}")
