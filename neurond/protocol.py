"""Every message between a supervisor and its device actors, msgpack over ZeroMQ ipc.

Two sockets join an actor to its supervisor, both made anew for each life of the actor. The
control socket carries what must never queue behind work; the data socket carries work. Bulk goes
by shared memory: prompt token ids through the prompt area (supervisor writes), images as segments
of their own whose descriptors go over a socket pair (`neurond.actor.images`), tokens, vectors and
the notices about requests and models through the token ring (actor writes), which a bell announces.
Both segments are memfds that the supervisor owns and passes by descriptor, as the bell's, so a
killed process leaves nothing behind.

Commands are imperative and go to the actor; notices are past tense and come back. Every command
that starts work has exactly one terminal notice: `LoadModel` ends in `ModelLoaded` or
`ModelLoadFailed`, `UnloadModel` in `ModelUnloaded`, `Generate` in a finish record on the ring for
each of its choices or in one `RequestFailed`, `Embed` as a `Generate` of one choice. The actor's
death ends everything in flight on it.
"""

import msgspec

from cortex_core.canonical import SamplingParams
from cortex_core.errors import ErrorInfo
from cortex_core.ids import BootId, DeviceName, ModelId, RequestId
from cortex_core.neuron_api import Dtype, EmbeddingSizes, KvDtype, Speculation
from neurond.images.arrays import ArrayPlace

ACTOR_PROTOCOL_VERSION = 8

CONTROL_HWM_MESSAGES = 8192
"""An actor that has left so many control messages unread counts as hung."""
DATA_HWM_MESSAGES = 4096
"""Beyond it a request is refused."""


class Command(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """Base of what the supervisor tells an actor."""


class Notice(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """Base of what an actor tells its supervisor."""


# control socket, supervisor to actor


class Configure(Command, frozen=True):
    """First command, in answer to `Hello`. The actor opens its device and answers `ActorReady`."""

    device: DeviceName
    threads: int
    memory_budget_bytes: int | None = None
    """Most that weights, KV and activations may take together; None is what the device has."""


class Cancel(Command, frozen=True):
    """Stop every choice of a request within one step. Idempotent; unknown ids are ignored.

    Each choice still gets its finish record, with reason `cancelled`.
    """

    request_id: RequestId


class FinishStream(Command, frozen=True):
    """Stop one choice, because a stop string matched in its text. Otherwise as `Cancel`."""

    stream: int


class Pause(Command, frozen=True):
    """Produce nothing more for a stream until `Resume`: its client is slow."""

    stream: int


class Resume(Command, frozen=True):
    stream: int


class Ping(Command, frozen=True):
    sequence: int


class Shutdown(Command, frozen=True):
    """Drop everything and exit with status 0."""


# data socket, supervisor to actor


class LoadModel(Command, frozen=True):
    """Load weights and allocate the KV cache, beside whatever is already served."""

    model_id: ModelId
    model_dir: str
    """A prepared model folder, see `neurond.sources.prepared`."""
    dtype: Dtype
    context_tokens: int
    max_sequences: int
    kv_cache_bytes: int
    block_tokens: int
    fallback_dtype: Dtype | None = None
    """What torch is to serve where `dtype` is for the CPU kernels and they cannot; None fails."""
    speculation: Speculation | None = None
    """None: "ngram" with the CPU kernels, "off" with torch."""
    kv_dtype: KvDtype | None = None
    """What the CPU kernels keep keys and values in, None being bfloat16; torch goes by `dtype`."""


class UnloadModel(Command, frozen=True):
    """Free a model. Requests still on it fail with `model_not_loaded`."""

    model_id: ModelId


class PromptImage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One image of a prompt; its arrays lie in a segment that comes over the image socket."""

    key: bytes
    """Equal for equal content."""
    num_tokens: int
    """Placeholders that stand for it."""
    places: tuple[ArrayPlace, ...]


class Generate(Command, frozen=True):
    """Start `n` choices. Choice `i` writes to the ring under stream `first_stream + i`.

    Prompt token ids are int32, little endian, in the prompt area. The range is the actor's to
    read until it sends `Admitted` or `RequestFailed`, then the supervisor's again.
    """

    request_id: RequestId
    model_id: ModelId
    first_stream: int
    n: int
    prompt_offset: int
    """Bytes into the prompt area."""
    num_prompt_tokens: int
    """Prompt and, on continuation, the output replayed after it."""
    num_replayed_tokens: int
    """How many of those are earlier output, for penalties and the random counter; 0 if new."""
    sampling: SamplingParams
    max_tokens: int
    """Clamped by the supervisor; counts new tokens only."""
    seed: int
    eos_token_ids: tuple[int, ...]
    priority: int = 0
    principal: str | None = None
    response_format: bytes | None = None
    """A canonical `ResponseFormat` as JSON, which only the thread that compiles it reads."""
    images: tuple[PromptImage, ...] = ()
    """In the order of their placeholders. Their descriptors were sent before this command, in one
    message with the request's id, over the socket pair of `actor.launch.Launch.images`."""
    placeholder_id: int | None = None
    """The token that placeholders are, where there are images."""


class Embed(Command, frozen=True):
    """Make a vector of each input; they come on the ring under `stream`, then its finish record.

    Token ids lie in the prompt area as those of `Generate` do, one input behind another.
    """

    request_id: RequestId
    model_id: ModelId
    stream: int
    prompt_offset: int
    """Bytes into the prompt area."""
    input_tokens: tuple[int, ...]
    """How many each input has; none is empty."""
    dimensions: int | None = None
    """As `EmbedRequest` has it; not more than the model's."""
    principal: str | None = None


# control socket, actor to supervisor


class Hello(Notice, frozen=True):
    """First message of an actor's life on each socket, before it has imported torch.

    With both in, the supervisor knows that both sockets are connected, and answers `Configure`.
    """

    protocol_version: int
    pid: int
    boot_id: BootId


class ActorReady(Notice, frozen=True):
    """The device is open."""

    device: DeviceName
    attention_backend: str
    memory_total_bytes: int
    memory_free_bytes: int
    kernels: str | None = None
    """Which variant of the CPU kernels there is."""
    kernels_unavailable_reason: str | None = None
    """Of a CPU that has none."""


class ActorFailed(Notice, frozen=True):
    """The actor cannot go on and exits; its last words."""

    error: ErrorInfo


class Pong(Notice, frozen=True):
    sequence: int


# token ring, actor to supervisor


class ModelLoading(Notice, frozen=True):
    """Progress of a load, at most ten times a second."""

    model_id: ModelId
    progress: float


class ModelLoaded(Notice, frozen=True):
    model_id: ModelId
    weights_id: str
    weights_bytes: int
    kv_cache_bytes: int
    num_blocks: int
    context_tokens: int
    """What really fits; never more than was asked for."""
    dtype: Dtype
    """What the weights are kept in."""
    kernels: str
    """The variant of the CPU kernels that computes it, `torch`, or `script`."""
    kernels_unavailable_reason: str | None = None
    """Why it is not the kernels that were to."""
    embedding: EmbeddingSizes | None = None
    """None where it gives no vectors as it is served."""
    kv_dtype: Dtype | None = None
    """What keys and values are kept in; None where there are none."""
    activation_bytes: int | None = None
    """What its steps take besides, where that is known; None leaves it at what was planned."""


class ModelLoadFailed(Notice, frozen=True):
    model_id: ModelId
    error: ErrorInfo


class ModelUnloaded(Notice, frozen=True):
    model_id: ModelId


class KvUsage(Notice, frozen=True):
    """How a model's K/V blocks are used, and drafts; about once a second while that changes."""

    model_id: ModelId
    num_available_blocks: int
    """Blocks that no sequence owns, those of the prefix cache included."""
    num_cached_blocks: int
    num_preemptions: int
    """Since the engine was made, as all below."""
    num_drafted_tokens: int = 0
    num_accepted_tokens: int = 0
    """Drafted tokens that were chosen."""


class NotHeld(Notice, frozen=True):
    """A format with triggers cannot be had for this model, so the answer is free; see
    `engine.triggers`. Before `Admitted`."""

    request_id: RequestId


class Admitted(Notice, frozen=True):
    """A request has its blocks and its prefill begins. The prompt area range is free again."""

    request_id: RequestId
    cached_tokens: int


class Adopted(Notice, frozen=True):
    """So many tokens of a prompt did not have to be computed for it, more than `Admitted` said:
    other requests did so meanwhile. Once at most, before its first token."""

    request_id: RequestId
    cached_tokens: int


class RequestFailed(Notice, frozen=True):
    """No record of this request follows."""

    request_id: RequestId
    error: ErrorInfo


ControlCommand = Configure | Cancel | FinishStream | Pause | Resume | Ping | Shutdown
DataCommand = LoadModel | UnloadModel | Generate | Embed
ControlNotice = Hello | ActorReady | ActorFailed | Pong
ModelNotice = ModelLoading | ModelLoaded | ModelLoadFailed | ModelUnloaded | KvUsage
RingNotice = ModelNotice | NotHeld | Admitted | Adopted | RequestFailed
