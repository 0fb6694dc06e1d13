"""What the router can decide for one request. Values only."""

from dataclasses import dataclass

from cortex_core.errors import CortexError
from cortex_core.ids import DeviceName, ModelId, NodeName, ReplicaId
from cortexd.fleet.protocol import ReplicaView


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """What is asked for.

    `failed_on` are replicas the request already failed on; `only_node` limits it to one node, as
    an operator may ask for.
    """

    model_id: ModelId
    failed_on: tuple[ReplicaId, ...] = ()
    only_node: NodeName | None = None


@dataclass(frozen=True, slots=True)
class RouteTo:
    """Send it there now."""

    replica: ReplicaView


@dataclass(frozen=True, slots=True)
class Load:
    """Make a replica: unload `evict`, then load onto `devices` of `node`."""

    node: NodeName
    devices: tuple[DeviceName, ...]
    evict: tuple[ReplicaId, ...]
    need_mb: int
    """What the model is expected to take over all devices; 0 where nothing is known."""
    state_version: int
    """Of the node, as this decision saw it."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done now, but that will change.

    `blocked_by` are busy replicas whose memory it needs, if it waits for that.
    """

    blocked_by: tuple[ReplicaId, ...] = ()


@dataclass(frozen=True, slots=True)
class Reject:
    """Waiting would not help."""

    error: CortexError


Decision = RouteTo | Load | Wait | Reject
