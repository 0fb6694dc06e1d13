"""The model of the fleet: nodes, replicas, and loads under way. Pure; the fleet actor owns it.

`FleetState.apply` is the only way in which it changes. What a node itself says of its models
and memory is the truth as of its `state_version`; on top of it lie only what this gateway has
set in motion and not yet seen confirmed: loads, replicas that give way, nodes that are suspect.
"""

from collections.abc import Iterator
from typing import assert_never

import msgspec

from cortex_core.errors import NodeUnavailable
from cortex_core.ids import BootId, DeviceName, ModelId, NodeName, ReplicaId
from cortex_core.neuron_api import NodeModel
from cortexd.fleet.columns import ColumnTable
from cortexd.fleet.events import (
    Cordoned,
    FleetEvent,
    HadNoRoom,
    InFlightRead,
    LoadDone,
    LoadFailed,
    LoadStarted,
    NodeFailed,
    NodePolled,
    RestartEnded,
    RestartStarted,
    RoomAgain,
    StreamBroke,
    Unloaded,
    UnloadFailed,
    UnloadStarted,
    Yielding,
)
from cortexd.fleet.records import ON_THE_WAY, PRESENT, LoadUnderWay, Node, Replica, replica_id

RESTART_AGAIN_S = 600.0
"""After a device was to be restarted, how long that is not tried again."""
FULL_S = 1.0
FULL_AT_MOST_S = 5.0
"""How long a replica counts as full whose node had no room: as the node says, within these two."""


class FleetState:
    """Nodes, replicas and loads. Changed by `apply` alone."""

    def __init__(
        self, nodes: dict[NodeName, str], *, columns: ColumnTable, unhealthy_after: int, now: float
    ) -> None:
        """`nodes` maps the configured names to base URLs."""
        self.nodes = {
            name: Node(name, endpoint.rstrip("/"), down_since=now)
            for name, endpoint in nodes.items()
        }
        self.replicas: dict[ReplicaId, Replica] = {}
        self.loads: dict[ModelId, LoadUnderWay] = {}
        self.measured_mb: dict[ModelId, int] = {}
        """What a model was last seen to take over all its devices."""
        self._columns = columns
        self._unhealthy_after = unhealthy_after

    def apply(self, event: FleetEvent, now: float) -> None:
        """Take one event in. Events about nodes and replicas that are gone are ignored."""
        match event:
            case NodePolled():
                self._polled(event, now)
            case NodeFailed():
                self._failed(event, now)
            case Cordoned():
                self.nodes[event.node].cordoned = event.on
            case LoadStarted():
                self._load_started(event)
            case LoadDone():
                self._load_done(event, now)
            case LoadFailed():
                self._load_failed(event, now)
            case Unloaded():
                self._unloaded(event, now)
            case RestartStarted():
                self._restart_started(event, now)
            case RestartEnded():
                self._restart_ended(event, now)
            case InFlightRead():
                self._in_flight(event, now)
            case _:
                self._apply_to_replica(event, now)

    def _apply_to_replica(
        self,
        event: StreamBroke | HadNoRoom | RoomAgain | UnloadStarted | UnloadFailed | Yielding,
        now: float,
    ) -> None:
        replica = self.replicas.get(event.replica_id)
        if replica is None:
            return
        match event:
            case StreamBroke():
                replica.suspect_since = self.nodes[replica.node].suspect_since = now
            case HadNoRoom():
                full_s = min(max(event.retry_after_s or 0.0, FULL_S), FULL_AT_MOST_S)
                replica.full_until = max(now + full_s, replica.full_until or 0.0)
            case RoomAgain():
                replica.full_until = None
            case UnloadStarted():
                replica.leaving = True
            case UnloadFailed():
                replica.leaving = False
                replica.last_used_at = now
            case Yielding():
                replica.yielding_to = event.to
            case _:
                assert_never(event)

    def replicas_of(self, model_id: ModelId) -> Iterator[Replica]:
        """Yield the replicas of a model on nodes that answer."""
        for node in self.nodes.values():
            replica = self.replicas.get(replica_id(node.name, model_id))
            if replica is not None and node.healthy:
                yield replica

    def on_node(self, node: NodeName) -> Iterator[Replica]:
        """Yield the replicas on a node, whether it answers or not."""
        return (replica for replica in self.replicas.values() if replica.node == node)

    def on_device(self, node: Node, device: DeviceName) -> Iterator[Replica]:
        """Yield the replicas that have memory of a device, or are about to."""
        for replica in self.on_node(node.name):
            if device in replica.model.devices and replica.model.status in PRESENT:
                yield replica

    def unreserved_mb(self, node: Node, device: DeviceName) -> int:
        """Return the memory of `device` that is free and not spoken for by a load under way."""
        free = node.free_mb.get(device, 0)
        for load in self.loads.values():
            if load.load.node == node.name:
                free -= load.still_to_come_mb(device, node.free_mb.get(device, 0))
        return max(0, free)

    def is_settling(self, node: NodeName) -> bool:
        """Say whether a model is on its way into memory on `node`, or a device of it on its way up.

        Whoever asked for it.
        """
        ours = any(load.load.node == node for load in self.loads.values())
        on_the_way = any(r.model.status in ON_THE_WAY for r in self.on_node(node))
        return ours or on_the_way or self.nodes[node].is_starting

    def _polled(self, event: NodePolled, now: float) -> None:
        node = self.nodes.get(event.node)
        if node is None:
            return
        boot_id = BootId(event.discovery.boot_id)
        reborn = boot_id != node.boot_id
        node.failures, node.healthy, node.error = 0, True, None
        node.down_since = None
        if node.suspect_since is not None and event.started_at >= node.suspect_since:
            node.suspect_since = None
        if node.stale_since is not None and event.started_at >= node.stale_since:
            node.stale_since = None
        if not reborn and event.state_version < node.state_version:
            return
        if reborn:
            node.cycles.clear()
        elif node.health is not None:
            before = {device.id: device.restarts for device in node.health.devices}
            for device in event.health.devices:
                if device.restarts != before.get(device.id):
                    node.cycles.pop(device.id, None)
        node.boot_id, node.discovery, node.health = boot_id, event.discovery, event.health
        node.state_version, node.draining = event.state_version, event.health.draining
        node.free_mb = {d.id: d.vram_free_mb for d in event.health.devices}
        node.device_ready = {d.id: d.state == "ready" for d in event.health.devices}
        node.models = {model.id: model for model in event.models}
        self._sync_replicas(node, event.started_at, now)

    def _sync_replicas(self, node: Node, polled_at: float, now: float) -> None:
        """Make the node's replicas what its models say, keeping what is known of their use."""
        for model in node.models.values():
            if model.status in PRESENT or model.status == "failed":
                self._present(node, model, now)
            if model.status == "ready" and model.vram_used_mb:
                self.measured_mb[model.id] = model.vram_used_mb
        for replica in list(self.on_node(node.name)):
            known = node.models.get(replica.model.id)
            if known is None or known.status == "unloaded":
                self._forget(replica)
            elif replica.suspect_since is not None and polled_at >= replica.suspect_since:
                replica.suspect_since = None

    def _present(self, node: Node, model: NodeModel, now: float) -> None:
        name = replica_id(node.name, model.id)
        replica = self.replicas.get(name)
        if replica is None:
            column = self._columns.take(name)
            replica = self.replicas[name] = Replica(name, node.name, model, column, now, now)
        if replica.column is None:
            replica.column = self._columns.take(name)
        if model.status == "ready" and replica.model.status != "ready":
            replica.last_used_at = replica.ready_at = now
        replica.model = model
        replica.elsewhere = max(0, model.running + model.waiting - replica.in_flight)
        if replica.elsewhere:
            replica.last_used_at = now

    def _forget(self, replica: Replica) -> None:
        del self.replicas[replica.id]
        self._columns.give_back(replica.id)

    def _failed(self, event: NodeFailed, now: float) -> None:
        node = self.nodes.get(event.node)
        if node is None:
            return
        node.failures += 1
        node.error = event.error.message
        if node.failures < self._unhealthy_after and node.suspect_since is None:
            return
        node.healthy = False
        node.suspect_since = node.stale_since = None
        if node.down_since is None:
            node.down_since = now

    def _load_started(self, event: LoadStarted) -> None:
        node = self.nodes[event.load.node]
        under_way = LoadUnderWay(event.load, dict(node.free_mb), event.asked_for)
        self.loads[event.model_id] = under_way
        for victim in event.load.evict:
            self._mark_leaving(victim, leaving=True)

    def _load_done(self, event: LoadDone, now: float) -> None:
        self.loads.pop(event.model_id, None)
        node = self.nodes[event.node]
        node.stale_since = now
        if event.state_version >= node.state_version:
            node.state_version = event.state_version
            node.models[event.model_id] = event.model
            self._present(node, event.model, now)

    def _load_failed(self, event: LoadFailed, now: float) -> None:
        under_way = self.loads.pop(event.model_id, None)
        for victim in under_way.load.evict if under_way else ():
            self._mark_leaving(victim, leaving=False)
        node = self.nodes[event.node]
        node.stale_since = now
        if isinstance(event.error, NodeUnavailable):
            node.suspect_since = now

    def _unloaded(self, event: Unloaded, now: float) -> None:
        replica = self.replicas.get(event.replica_id)
        if replica is None:
            return
        node = self.nodes[replica.node]
        node.state_version = max(node.state_version, event.state_version)
        node.stale_since = now
        held = replica.model
        node.cycles.update(held.devices)
        for device in held.devices:
            share = held.vram_used_mb // len(held.devices)
            node.free_mb[device] = node.free_mb.get(device, 0) + share
        for load in self.loads.values():
            if load.load.node == node.name:
                load.free_at_start = dict(node.free_mb)
        node.models[held.id] = msgspec.structs.replace(
            held, status="unloaded", devices=[], vram_used_mb=0, loading=None
        )
        self._forget(replica)

    def _restart_started(self, event: RestartStarted, now: float) -> None:
        """Take what is on the device for loading already: it will be, and nothing goes there."""
        node = self.nodes[event.node]
        node.stale_since = now
        node.restart_not_before[event.device] = now + RESTART_AGAIN_S
        for replica in self.on_device(node, event.device):
            replica.model = msgspec.structs.replace(replica.model, status="loading")

    def _restart_ended(self, event: RestartEnded, now: float) -> None:
        node = self.nodes[event.node]
        node.stale_since = now
        if event.error is None:
            node.cycles.pop(event.device, None)

    def _mark_leaving(self, name: ReplicaId, *, leaving: bool) -> None:
        replica = self.replicas.get(name)
        if replica is not None:
            replica.leaving = leaving

    def published(self) -> None:
        """Workers see the replicas as they are now; columns of those that are gone may empty."""
        self._columns.published()

    def without_column(self) -> int:
        """Return how many replicas are not routed to, because the in-flight table is full."""
        return sum(replica.column is None for replica in self.replicas.values())

    def columns_in_use(self) -> list[int]:
        """Return every column of the in-flight table that anybody may count in."""
        return self._columns.in_use()

    def _in_flight(self, event: InFlightRead, now: float) -> None:
        self._columns.emptied(event.in_flight)
        for replica in self.replicas.values():
            if replica.column is None:
                continue
            replica.in_flight = event.in_flight.get(replica.column, 0)
            started = event.started.get(replica.column, 0)
            if replica.in_flight or started != replica.started:
                replica.last_used_at = now
            replica.started = started
