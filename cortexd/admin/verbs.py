"""The admin verbs of the fleet actor. Handlers run on its loop; see `cortexd.admin.types`."""

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from cortex_core.canonical import Loading
from cortex_core.errors import (
    Conflict,
    CortexError,
    ModelNotLoaded,
    NotFound,
    Timeout,
    error_from_info,
)
from cortex_core.ids import ModelId, NodeName, ReplicaId, new_request_id
from cortex_core.ipc.admin import Handler, ProgressSink, typed
from cortexd.admin.reports import models_report, node_report, replica_report, status_report
from cortexd.admin.types import (
    DrainArgs,
    Draining,
    FleetStatus,
    LoadArgs,
    ModelStatus,
    NoArgs,
    NodeArgs,
    NodeStatus,
    ReplicaStatus,
    UnloadArgs,
)
from cortexd.fleet.conductor import Conductor
from cortexd.fleet.drained import DrainedNodes
from cortexd.fleet.events import Cordoned, UnloadFailed, UnloadStarted
from cortexd.fleet.index import FleetIndex
from cortexd.fleet.protocol import (
    Acquire,
    AcquireProgress,
    Granted,
    Rejected,
    ReplicaView,
    ToWorker,
)
from cortexd.fleet.records import Node, Replica

PROGRESS_S = 1.0
"""Between two signs of life of a verb that waits."""


HEARD = 8
"""Messages of the dispatcher that wait for a verb to pass them on."""


class AdminVerbs:
    """What `cortex status|models|load|unload|drain` ask for."""

    def __init__(
        self, conductor: Conductor, drained: DrainedNodes, snapshot_version: Callable[[], int]
    ) -> None:
        self._conductor = conductor
        self._drained = drained
        self._dispatcher = conductor.dispatcher
        self._snapshot_version = snapshot_version

    def handlers(self) -> Mapping[str, Handler]:
        """Return the verbs by name."""
        return {
            "status": typed(NoArgs, self.status),
            "models": typed(NoArgs, self.models),
            "load": typed(LoadArgs, self.load),
            "unload": typed(UnloadArgs, self.unload),
            "drain": typed(DrainArgs, self.drain),
            "undrain": typed(NodeArgs, self.undrain),
        }

    async def status(self, args: NoArgs, progress: ProgressSink) -> FleetStatus:  # noqa: ARG002 - handlers are called alike
        """Return nodes, replicas and queues."""
        self._conductor.look()
        return status_report(self._dispatcher, self._snapshot_version())

    async def models(self, args: NoArgs, progress: ProgressSink) -> list[ModelStatus]:  # noqa: ARG002 - handlers are called alike
        """Return every model that can be asked for."""
        self._conductor.look()
        return models_report(self._dispatcher)

    async def load(self, args: LoadArgs, progress: ProgressSink) -> ReplicaStatus:
        """Load a model unless it is loaded; if the caller goes away, the load goes on.

        Raises:
            ModelNotFound, NotFound: there is no such model, or node.
            Overloaded, OutOfMemory, ModelLoadFailed: as for a request.
        """
        model_id = self._resolve(args.model)
        if args.node is not None:
            self._node(args.node)
        ready = self._ready(model_id, args.node)
        if ready is None:
            ready = await self._acquire(model_id, args.node, progress)
        return replica_report(self._dispatcher, ready)

    async def unload(self, args: UnloadArgs, progress: ProgressSink) -> list[ReplicaId]:
        """Unload a model; its new requests wait or go elsewhere while it drains.

        Raises:
            ModelNotFound, NotFound: there is no such model, or node.
            ModelNotLoaded: it is not in memory there.
            Timeout: what runs on it did not end in time; it stays loaded.
        """
        model_id = self._resolve(args.model)
        if args.node is not None:
            self._node(args.node)
        here = [
            replica
            for replica in self._dispatcher.state.replicas_of(model_id)
            if args.node in (None, replica.node) and replica.model.status in ("ready", "asleep")
        ]
        if not here:
            raise ModelNotLoaded(f"cannot unload {model_id}: it is not loaded")
        gone: list[ReplicaId] = []
        for replica in here:
            try:
                await self._unload_one(replica, args, progress)
            except CortexError as error:
                if not gone:
                    raise
                raise _after(error, gone) from error
            gone.append(replica.id)
        return gone

    async def drain(self, args: DrainArgs, progress: ProgressSink) -> NodeStatus:
        """Take a node out of service.

        Raises:
            NotFound: there is no such node.
            Timeout: what runs there did not end in time; the node stays out of service.
        """
        node = self._node(args.node)
        self._cordon(node, on=True)
        replicas = list(self._dispatcher.state.on_node(node.name))
        if not await self._until_idle(replicas, args.timeout_s, progress):
            raise Timeout(
                f"cannot finish draining {node.name}: requests still run after "
                f"{args.timeout_s:g} s; it gets no new ones"
            )
        return node_report(node)

    async def undrain(self, args: NodeArgs, progress: ProgressSink) -> NodeStatus:  # noqa: ARG002 - handlers are called alike
        """Put a node back into service. Raises: NotFound."""
        node = self._node(args.node)
        self._cordon(node, on=False)
        return node_report(node)

    def _cordon(self, node: Node, *, on: bool) -> None:
        """Take a node out of service or put it back, in the eyes of the next fleet actor too."""
        others = {
            other.name
            for other in self._dispatcher.state.nodes.values()
            if other.cordoned and other is not node
        }
        self._drained.write(others | {node.name} if on else others)
        self._conductor.submit(Cordoned(node.name, on=on))

    async def _acquire(
        self, model_id: ModelId, node: NodeName | None, progress: ProgressSink
    ) -> ReplicaView:
        heard: asyncio.Queue[ToWorker] = asyncio.Queue(HEARD)

        def hear(message: ToWorker) -> None:
            if heard.full():
                # Progress that was not passed on yet is old; the last word comes last.
                heard.get_nowait()
            heard.put_nowait(message)

        request = Acquire(new_request_id(), model_id)
        origin = b"admin-" + request.request_id.encode()
        try:
            self._conductor.ask(origin, request, only_node=node, hear=hear)
            while True:
                match await heard.get():
                    case AcquireProgress(loading=loading):
                        progress(loading)
                    case Granted(replica=replica):
                        progress(Loading(stage="ready", progress=1.0))
                        return replica
                    case Rejected(error=error):
                        raise error_from_info(error)
        finally:
            self._conductor.withdraw(origin)

    async def _unload_one(self, replica: Replica, args: UnloadArgs, progress: ProgressSink) -> None:
        self._conductor.submit(UnloadStarted(replica.id))
        try:
            idle = args.force or await self._until_idle([replica], args.timeout_s, progress)
        except asyncio.CancelledError:
            stays = Conflict(f"cannot unload {replica.id}: the call was given up")
            self._conductor.submit(UnloadFailed(replica.id, stays))
            raise
        if not idle:
            late = Timeout(
                f"cannot unload {replica.id}: requests still run on it after {args.timeout_s:g} s; "
                "give it more time, or force it"
            )
            self._conductor.submit(UnloadFailed(replica.id, late))
            raise late
        outcome = await self._conductor.unload(replica.id, force=args.force)
        if isinstance(outcome, UnloadFailed):
            raise outcome.error

    async def _until_idle(
        self, replicas: list[Replica], timeout_s: float, progress: ProgressSink
    ) -> bool:
        left_s = timeout_s
        while self._in_flight(replicas) and left_s > 0:
            progress(Draining(self._in_flight(replicas)))
            step_s = min(PROGRESS_S, left_s)
            if await self._conductor.until(lambda: not self._in_flight(replicas), step_s):
                return True
            left_s -= step_s
        return not self._in_flight(replicas)

    def _in_flight(self, replicas: list[Replica]) -> int:
        columns = (replica.column for replica in replicas)
        return sum(self._dispatcher.in_flight(column) for column in columns if column is not None)

    def _ready(self, model_id: ModelId, node: NodeName | None) -> ReplicaView | None:
        for view in self._dispatcher.snapshot().replicas:
            here = view.model_id == model_id and node in (None, view.node)
            if here and view.status == "ready" and view.servable:
                return view
        return None

    def _resolve(self, text: str) -> ModelId:
        return FleetIndex(self._dispatcher.snapshot()).resolve(text)

    def _node(self, name: NodeName) -> Node:
        node = self._dispatcher.state.nodes.get(name)
        if node is None:
            known = ", ".join(self._dispatcher.state.nodes) or "none"
            raise NotFound(f"cannot find node {name!r}: configured are {known}", param="node")
        return node


def _after(error: CortexError, gone: list[ReplicaId]) -> CortexError:
    """Return the error with what was unloaded before it in its message."""
    text = f"{error.message}; unloaded before that: {', '.join(gone)}"
    return error_from_info(msgspec.structs.replace(error.info(), message=text))
