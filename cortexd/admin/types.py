"""Arguments, progress and results of the admin verbs, as they stand on the socket.

| verb | arguments | progress | result |
|---|---|---|---|
| status | `NoArgs` | | `FleetStatus` |
| models | `NoArgs` | | list of `ModelStatus` |
| load | `LoadArgs` | `Loading` | `ReplicaStatus` |
| unload | `UnloadArgs` | `Draining` | list of `ReplicaId` that were unloaded |
| drain | `DrainArgs` | `Draining` | `NodeStatus` |
| undrain | `NodeArgs` | | `NodeStatus` |
"""

import msgspec

from cortex_core.ids import DeviceName, ModelId, NodeName, ReplicaId
from cortex_core.neuron_api import ModelLimit, ModelState, WaitS


class NoArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No arguments."""


class LoadArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model` may be an alias. Without `node` the fleet places it."""

    model: str
    node: NodeName | None = None


class UnloadArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Without `node`, everywhere. What runs may end first, unless `force` is set."""

    model: str
    node: NodeName | None = None
    force: bool = False
    timeout_s: WaitS = 300.0
    """How long running requests may take to end."""


class NodeArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    node: NodeName


class DrainArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing new goes to the node from now on; answers when what runs there has ended."""

    node: NodeName
    timeout_s: WaitS = 300.0
    """How long that may take; the node stays drained in any case."""


class Draining(msgspec.Struct, frozen=True):
    """Progress: so many requests still run."""

    in_flight: int


class DeviceStatus(msgspec.Struct, frozen=True):
    id: DeviceName
    name: str
    vram_total_mb: int
    vram_free_mb: int
    ready: bool


class NodeStatus(msgspec.Struct, frozen=True):
    """`cycles` counts this gateway's unloads in the lives that the node's devices are in."""

    name: NodeName
    endpoint: str
    healthy: bool
    draining: bool
    hostname: str | None
    error: str | None
    devices: list[DeviceStatus]
    cycles: int


class ReplicaStatus(msgspec.Struct, frozen=True):
    id: ReplicaId
    model_id: ModelId
    node: NodeName
    status: ModelState
    devices: list[DeviceName]
    vram_used_mb: int
    in_flight: int
    servable: bool
    reason: str | None = None
    progress: float | None = None
    """0 to 1 while it is on its way, where known."""


class ModelStatus(msgspec.Struct, frozen=True):
    id: ModelId
    configured: bool
    loaded: bool
    queue_depth: int
    vram_estimate_mb: int | None
    feasible_on: list[NodeName]
    pinned_on: list[NodeName]
    limit: ModelLimit
    aliases: list[str]
    replicas: list[ReplicaStatus]


class FleetStatus(msgspec.Struct, frozen=True):
    version: str
    snapshot_version: int
    nodes: list[NodeStatus]
    replicas: list[ReplicaStatus]
    queues: dict[ModelId, int]
    """Requests that wait, for models that have any."""
