"""Turns the fleet's state into the snapshot that HTTP workers read. Pure."""

from collections.abc import Container

from cortex_core.canonical import Loading
from cortex_core.ids import ModelId
from cortexd.fleet.catalogue import Catalogue
from cortexd.fleet.protocol import FleetSnapshot, ModelView, NodeView, ReplicaView
from cortexd.fleet.records import ON_THE_WAY, Node, Replica, cause_of
from cortexd.fleet.state import FleetState


def snapshot_of(
    state: FleetState,
    catalogue: Catalogue,
    *,
    queued: Container[ModelId],
    default_scheme: str,
    version: int = 0,
) -> FleetSnapshot:
    """Return everything that a worker needs to list models and to route.

    `queued` are the models that requests wait for in the actor.
    """
    replicas = (_replica_view(state, catalogue, replica) for replica in state.replicas.values())
    return FleetSnapshot(
        version=version,
        models=tuple(
            _model_view(state, catalogue, model_id, queued=model_id in queued)
            for model_id in catalogue.known(state)
        ),
        nodes=tuple(_node_view(node) for node in state.nodes.values()),
        replicas=tuple(view for view in replicas if view is not None),
        aliases=catalogue.aliases,
        default_scheme=default_scheme,
        tiers=catalogue.tiers,
    )


def loading_of(state: FleetState, model_id: ModelId) -> Loading:
    """Return how far the model is on its way into memory; `queued` if it is not."""
    under_way = state.loads.get(model_id)
    for replica in state.replicas_of(model_id):
        if replica.model.status in ON_THE_WAY:
            reported = replica.model.loading
            if reported is None:
                return Loading(stage=replica.model.status)
            return Loading(reported.stage, reported.progress, reported.eta_s)
    if under_way is None:
        return Loading(stage="queued")
    evicting = any(victim in state.replicas for victim in under_way.load.evict)
    return Loading(stage="evicting" if evicting else "loading")


def _node_view(node: Node) -> NodeView:
    hostname = node.discovery.hostname if node.discovery else None
    return NodeView(node.name, node.endpoint, node.healthy, hostname)


def _replica_view(state: FleetState, catalogue: Catalogue, replica: Replica) -> ReplicaView | None:
    """Return None for a replica that got no column of the in-flight table."""
    if replica.column is None:
        return None
    node = state.nodes[replica.node]
    reason = _unservable(node, replica)
    gives_way = replica.leaving or replica.yielding_to is not None
    return ReplicaView(
        id=replica.id,
        model_id=replica.model.id,
        node=node.name,
        endpoint=node.endpoint,
        status="draining"
        if gives_way and replica.model.status == "ready"
        else replica.model.status,
        column=replica.column,
        max_in_flight=catalogue.max_in_flight(replica.model.id),
        vram_used_mb=replica.model.vram_used_mb,
        servable=reason is None,
        reason=reason,
        full=replica.full_until is not None,
    )


def _unservable(node: Node, replica: Replica) -> str | None:
    if not node.healthy or node.cordoned or node.draining:
        return cause_of(node)
    if replica.suspect_since is not None or node.suspect_since is not None:
        return "it broke off a request and is being looked at"
    if not replica.model.servable.ok:
        return replica.model.servable.detail or replica.model.servable.reason or "not servable"
    return None


def _model_view(
    state: FleetState, catalogue: Catalogue, model_id: ModelId, *, queued: bool
) -> ModelView:
    entry = catalogue.entry(model_id)
    return ModelView(
        id=model_id,
        feasible_on=catalogue.feasible_on(state, model_id),
        vram_estimate_mb=catalogue.need_mb(state, model_id),
        limit=catalogue.limit(state, model_id),
        capabilities=catalogue.capabilities(state, model_id),
        pinned_on=entry.pinned_on,
        queued=queued,
        cost=entry.cost,
        chat_template=entry.chat_template,
        embedding=catalogue.embedding(state, model_id),
    )
