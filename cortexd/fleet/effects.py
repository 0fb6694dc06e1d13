"""What the dispatcher wants done. The fleet actor carries it out, in order."""

from dataclasses import dataclass

from cortex_core.ids import DeviceName, ModelId, NodeName, ReplicaId
from cortexd.fleet.decisions import Load
from cortexd.fleet.protocol import ToWorker


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message to the worker, or the operator, behind `origin`."""

    origin: bytes
    message: ToWorker


@dataclass(frozen=True, slots=True)
class StartLoad:
    """Carry out a load; report `Unloaded` for each victim, then `LoadDone` or `LoadFailed`.

    Victims in which requests are counted after the snapshot is out make it fail as a conflict.
    """

    model_id: ModelId
    load: Load


@dataclass(frozen=True, slots=True)
class StartUnload:
    """Unload an idle replica; report `Unloaded` or `UnloadFailed`.

    With `drain` the node lets what others run on it end for a while; with `force` it ends that.
    Without either, such a replica is not unloaded.
    """

    replica_id: ReplicaId
    drain: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class RestartDevice:
    """Give a device a new process; report `RestartEnded`.

    Requests that are counted on it after the snapshot is out make it fail as a conflict.
    """

    node: NodeName
    device: DeviceName


@dataclass(frozen=True, slots=True)
class PollNow:
    """Ask a node for its state at once."""

    node: NodeName


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A model was loaded because it was asked for; counted in the metrics."""

    model_id: ModelId
    node: NodeName


@dataclass(frozen=True, slots=True)
class Refused:
    """A request was turned away; counted in the metrics by error code."""

    model_id: ModelId
    code: str


Effect = Tell | StartLoad | StartUnload | RestartDevice | PollNow | ColdStart | Refused
