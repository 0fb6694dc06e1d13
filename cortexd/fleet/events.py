"""What happens to the fleet. Every change of `FleetState` is one of these, applied in order."""

from dataclasses import dataclass

from cortex_core.errors import CortexError
from cortex_core.ids import DeviceName, ModelId, NodeName, ReplicaId
from cortex_core.neuron_api import Discovery, Health, NodeModel
from cortexd.fleet.decisions import Load


@dataclass(frozen=True, slots=True)
class NodePolled:
    """A node answered. `started_at` is when the poll began: what broke since is not refuted."""

    node: NodeName
    discovery: Discovery
    health: Health
    state_version: int
    models: tuple[NodeModel, ...]
    started_at: float


@dataclass(frozen=True, slots=True)
class NodeFailed:
    """A node did not answer a poll, or broke off what it was asked."""

    node: NodeName
    error: CortexError


@dataclass(frozen=True, slots=True)
class StreamBroke:
    """A request failed on a replica for the node's or the device's sake."""

    replica_id: ReplicaId


@dataclass(frozen=True, slots=True)
class HadNoRoom:
    """A node turned a request to a replica away; `retry_after_s` is its word when to ask again."""

    replica_id: ReplicaId
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class RoomAgain:
    """A replica that counted as full may be asked again."""

    replica_id: ReplicaId


@dataclass(frozen=True, slots=True)
class LoadStarted:
    """The decision is being carried out; `load.evict` give way from now on.

    `asked_for` says that a request made it necessary.
    """

    model_id: ModelId
    load: Load
    asked_for: bool = False


@dataclass(frozen=True, slots=True)
class LoadDone:
    """The node has the model ready."""

    model_id: ModelId
    node: NodeName
    model: NodeModel
    state_version: int


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The load, or an eviction for it, came to nothing."""

    model_id: ModelId
    node: NodeName
    error: CortexError


@dataclass(frozen=True, slots=True)
class UnloadStarted:
    """A replica takes no more requests and is about to go."""

    replica_id: ReplicaId


@dataclass(frozen=True, slots=True)
class Unloaded:
    """A replica's memory is free again."""

    replica_id: ReplicaId
    state_version: int


@dataclass(frozen=True, slots=True)
class UnloadFailed:
    """A replica stays."""

    replica_id: ReplicaId
    error: CortexError


@dataclass(frozen=True, slots=True)
class Yielding:
    """A busy replica takes no more requests until `to` is served or gone; None lifts it."""

    replica_id: ReplicaId
    to: ModelId | None


@dataclass(frozen=True, slots=True)
class RestartStarted:
    """An idle device is given a new process; what is loaded there comes back by itself."""

    node: NodeName
    device: DeviceName


@dataclass(frozen=True, slots=True)
class RestartEnded:
    """The device has its new process, or `error` says why not."""

    node: NodeName
    device: DeviceName
    error: CortexError | None = None


@dataclass(frozen=True, slots=True)
class Cordoned:
    """An operator takes a node out of service, or puts it back."""

    node: NodeName
    on: bool


@dataclass(frozen=True, slots=True)
class InFlightRead:
    """The in-flight table, summed over workers, by replica column.

    `started` counts requests ever given to a replica; only that it differs means anything.
    """

    in_flight: dict[int, int]
    started: dict[int, int]


FleetEvent = (
    NodePolled
    | NodeFailed
    | StreamBroke
    | HadNoRoom
    | RoomAgain
    | LoadStarted
    | LoadDone
    | LoadFailed
    | UnloadStarted
    | Unloaded
    | UnloadFailed
    | Yielding
    | RestartStarted
    | RestartEnded
    | Cordoned
    | InFlightRead
)
