"""The fleet's state as an operator sees it. Reads only."""

from cortex_core import __version__
from cortex_core.ids import ModelId
from cortexd.admin.types import (
    DeviceStatus,
    FleetStatus,
    ModelStatus,
    NodeStatus,
    ReplicaStatus,
)
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.protocol import FleetSnapshot, ReplicaView
from cortexd.fleet.records import Node


def status_report(dispatcher: Dispatcher, snapshot_version: int) -> FleetStatus:
    """Return nodes, replicas and queues."""
    snapshot = dispatcher.snapshot()
    return FleetStatus(
        version=__version__,
        snapshot_version=snapshot_version,
        nodes=[node_report(node) for node in dispatcher.state.nodes.values()],
        replicas=[replica_report(dispatcher, view) for view in snapshot.replicas],
        queues={model: dispatcher.queues.depth(model) for model in dispatcher.queues.models()},
    )


def models_report(dispatcher: Dispatcher) -> list[ModelStatus]:
    """Return every model that can be asked for."""
    snapshot = dispatcher.snapshot()
    return [_model_report(dispatcher, snapshot, model.id) for model in snapshot.models]


def node_report(node: Node) -> NodeStatus:
    """Return one node, as the last answers to its polls told."""
    found = node.discovery.devices if node.discovery else []
    return NodeStatus(
        name=node.name,
        endpoint=node.endpoint,
        healthy=node.healthy,
        draining=node.cordoned or node.draining,
        hostname=node.discovery.hostname if node.discovery else None,
        error=node.error,
        devices=[
            DeviceStatus(
                id=device.id,
                name=device.name,
                vram_total_mb=device.vram_total_mb,
                vram_free_mb=node.free_mb.get(device.id, 0),
                ready=node.healthy and node.device_ready.get(device.id, False),
            )
            for device in found
        ],
        cycles=node.cycles.total(),
    )


def replica_report(dispatcher: Dispatcher, view: ReplicaView) -> ReplicaStatus:
    """Return one replica, as workers see it and as its node tells."""
    model = dispatcher.state.replicas[view.id].model
    return ReplicaStatus(
        id=view.id,
        model_id=view.model_id,
        node=view.node,
        status=view.status,
        devices=list(model.devices),
        vram_used_mb=view.vram_used_mb,
        in_flight=dispatcher.in_flight(view.column),
        servable=view.servable,
        reason=view.reason,
        progress=model.loading.progress if model.loading else None,
    )


def _model_report(
    dispatcher: Dispatcher, snapshot: FleetSnapshot, model_id: ModelId
) -> ModelStatus:
    view = next(model for model in snapshot.models if model.id == model_id)
    here = [replica for replica in snapshot.replicas if replica.model_id == model_id]
    return ModelStatus(
        id=model_id,
        configured=model_id in dispatcher.catalogue.configured(),
        loaded=any(replica.status == "ready" and replica.servable for replica in here),
        queue_depth=dispatcher.queues.depth(model_id),
        vram_estimate_mb=view.vram_estimate_mb,
        feasible_on=list(view.feasible_on),
        pinned_on=list(view.pinned_on),
        limit=view.limit,
        aliases=[alias for alias, target in snapshot.aliases.items() if target == model_id],
        replicas=[replica_report(dispatcher, replica) for replica in here],
    )
