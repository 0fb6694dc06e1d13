"""Nodes, replicas and loads, as the fleet actor keeps them. Values; `FleetState` changes them."""

from collections import Counter
from dataclasses import dataclass, field

from cortex_core.ids import BootId, DeviceName, ModelId, NodeName, ReplicaId
from cortex_core.neuron_api import DeviceInfo, Discovery, Health, NodeModel
from cortexd.fleet.decisions import Load

PRESENT = frozenset({"fetching", "loading", "ready", "asleep", "draining", "unloading"})
"""States of a model that take memory on its node, or soon will."""
ON_THE_WAY = frozenset({"fetching", "loading"})


def replica_id(node: NodeName, model_id: ModelId) -> ReplicaId:
    """Return the name of `model_id` on `node`."""
    return ReplicaId(f"{node}/{model_id}")


@dataclass(slots=True)
class Replica:
    """A model in a node's memory, or on its way there, and what is known of its use."""

    id: ReplicaId
    node: NodeName
    model: NodeModel
    column: int | None
    last_used_at: float
    ready_at: float
    """When it was first seen ready; when it was first seen, until then."""
    in_flight: int = 0
    elsewhere: int = 0
    """Requests that the node had on it when last polled, and this gateway did not send."""
    started: int = 0
    suspect_since: float | None = None
    leaving: bool = False
    yielding_to: ModelId | None = None
    full_until: float | None = None
    """Its node had no room for a request; until then it counts as full."""

    @property
    def ready(self) -> bool:
        """Whether requests may go there, as far as the replica itself is concerned."""
        stays = self.suspect_since is None and not self.leaving and self.yielding_to is None
        return self.model.status == "ready" and self.model.servable.ok and stays


@dataclass(slots=True)
class LoadUnderWay:
    """One load of this gateway. `free_at_start` lets measured progress replace the estimate."""

    load: Load
    free_at_start: dict[DeviceName, int]
    asked_for: bool = False
    """By a request, not by `min_replicas` alone."""

    def still_to_come_mb(self, device: DeviceName, free_mb: int) -> int:
        """Return what the load has not taken of `device` yet, as far as can be told."""
        if device not in self.load.devices:
            return 0
        share = -(-self.load.need_mb // len(self.load.devices))
        taken = self.free_at_start.get(device, free_mb) - free_mb
        return max(0, share - max(0, taken))


@dataclass(slots=True)
class Node:
    """One neuron, as far as its last answers tell."""

    name: NodeName
    endpoint: str
    discovery: Discovery | None = None
    health: Health | None = None
    boot_id: BootId | None = None
    state_version: int = 0
    healthy: bool = False
    draining: bool = False
    cordoned: bool = False
    failures: int = 0
    error: str | None = None
    down_since: float | None = None
    suspect_since: float | None = None
    stale_since: float | None = None
    """Memory or models changed; nothing is decided here before a poll that began since."""
    cycles: Counter[DeviceName] = field(default_factory=Counter)
    """Models that this gateway unloaded, by device, in the life of the device's process."""
    restart_not_before: dict[DeviceName, float] = field(default_factory=dict)
    models: dict[ModelId, NodeModel] = field(default_factory=dict)
    free_mb: dict[DeviceName, int] = field(default_factory=dict)
    """As last measured, and what was unloaded since."""
    device_ready: dict[DeviceName, bool] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether anything may be decided on what is known of this node."""
        return self.healthy and not (self.draining or self.cordoned or self.in_doubt)

    @property
    def in_doubt(self) -> bool:
        """Whether the next poll may say something else of this node."""
        return self.stale_since is not None or self.suspect_since is not None

    @property
    def is_starting(self) -> bool:
        """Whether a device of this node is on its way up and can take models soon."""
        found = self.health.devices if self.healthy and self.health else []
        return any(device.state == "starting" for device in found)

    def devices(self) -> list[DeviceInfo]:
        """Return the devices that can take a model."""
        found = self.discovery.devices if self.discovery else []
        return [device for device in found if self.device_ready.get(device.id, False)]


def cause_of(node: Node) -> str:
    """Return why a node cannot be used, for messages to people."""
    if node.cordoned:
        return "it is drained by an operator"
    if node.draining:
        return "it is shutting down"
    return node.error or "it has not answered yet"
