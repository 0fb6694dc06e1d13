"""What passes between HTTP workers and the fleet actor.

Two ways. The `FleetSnapshot` lies in shared memory: the fleet actor writes it, workers read it for
every request and route to a ready replica by themselves. What needs a decision about memory or
a place in a queue is asked of the actor over ZeroMQ ipc (worker DEALER, actor ROUTER, msgpack):
an `Acquire` is answered by any number of `AcquireProgress`, one a second at least, and then by
exactly one `Granted` or `Rejected`; sent again it is answered again. `CancelAcquire` ends it
without an answer and never triggers a load.
"""

import msgspec

from cortex_core.canonical import Loading
from cortex_core.errors import ErrorInfo
from cortex_core.ids import ModelId, NodeName, ReplicaId, RequestId
from cortex_core.neuron_api import EmbeddingSizes, ModelLimit, ModelState


class NodeView(msgspec.Struct, frozen=True, array_like=True):
    name: NodeName
    endpoint: str
    """Base URL without a slash at the end."""
    healthy: bool
    hostname: str | None = None


class ReplicaView(msgspec.Struct, frozen=True, array_like=True):
    """A model on a node, as far as the last poll or our own load knows."""

    id: ReplicaId
    model_id: ModelId
    node: NodeName
    endpoint: str
    status: ModelState
    column: int
    """Of the in-flight table; stable while the replica is known."""
    max_in_flight: int
    vram_used_mb: int = 0
    servable: bool = True
    reason: str | None = None
    full: bool = False
    """Its node had no room for a request just now: it takes none, whatever is in flight."""


class ModelView(msgspec.Struct, frozen=True, array_like=True):
    """A model that the fleet can serve, loaded or not: catalogue x discovered devices."""

    id: ModelId
    feasible_on: tuple[NodeName, ...]
    vram_estimate_mb: int | None
    limit: ModelLimit
    capabilities: tuple[str, ...] = ()
    pinned_on: tuple[NodeName, ...] = ()
    owned_by: str = "cortex"
    queued: bool = False
    """Requests wait for this model in the actor; workers ask it too, so as not to overtake."""
    cost: dict[str, float] | None = None
    """As the catalogue has it."""
    chat_template: str | None = None
    """As the catalogue has it: a node that has not loaded the model was not told of it yet."""
    embedding: EmbeddingSizes | None = None
    """As a node has it that has the model loaded."""


class FleetSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """Everything a worker needs to list models and to route. `version` only grows."""

    version: int
    models: tuple[ModelView, ...]
    nodes: tuple[NodeView, ...]
    replicas: tuple[ReplicaView, ...]
    aliases: dict[str, ModelId]
    default_scheme: str = "hf"
    tiers: dict[str, ModelId] = {}
    """Line of Anthropic's models, such as `opus`, to who answers for it."""


class WorkerMessage(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """Base of what a worker tells the fleet actor."""


class Acquire(WorkerMessage, frozen=True):
    """Find or make a replica of `model_id` that takes one more request.

    `failed_on` are replicas that this request already failed on; `request_id` is the handle.
    `waited_s` is how long nodes have had no room for it, which counts as waiting here.
    """

    request_id: RequestId
    model_id: ModelId
    priority: int = 0
    principal: str | None = None
    failed_on: tuple[ReplicaId, ...] = ()
    waited_s: float = 0.0


class CancelAcquire(WorkerMessage, frozen=True):
    """The client went away. Idempotent."""

    request_id: RequestId


class GrantTaken(WorkerMessage, frozen=True):
    """The request is counted in the worker's row; the actor gives up the place it held for it."""

    request_id: RequestId


class ReportFailure(WorkerMessage, frozen=True):
    """A node did not answer, or broke off; it is polled at once."""

    replica_id: ReplicaId
    error: ErrorInfo


class ReportFull(WorkerMessage, frozen=True):
    """A node had no room for a request, and says when to ask again; till then nobody does."""

    replica_id: ReplicaId
    retry_after_s: float | None = None


class ActorMessage(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """Base of what the fleet actor tells a worker."""


class AcquireProgress(ActorMessage, frozen=True):
    request_id: RequestId
    loading: Loading


class Granted(ActorMessage, frozen=True):
    """`replica` has room. The worker counts the request in its own row before it sends it."""

    request_id: RequestId
    replica: ReplicaView


class Rejected(ActorMessage, frozen=True):
    request_id: RequestId
    error: ErrorInfo


ToActor = Acquire | CancelAcquire | GrantTaken | ReportFailure | ReportFull
ToWorker = AcquireProgress | Granted | Rejected
