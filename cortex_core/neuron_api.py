"""Types of the neuron's HTTP API, read by the gateway and written by the node.

Route by route they are described in `docs/protocol.md`. Unknown fields are ignored on reading, so
that gateway and node can be updated one after the other.
"""

from typing import Annotated, Literal

import msgspec

from cortex_core.ids import DeviceName, ModelId
from cortex_core.sizes import MAX_COUNT

CHAT = "chat"
"""The capability of a model that has a chat template."""
Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)]
"""A number of things that a profile may name."""
MAX_WAIT_S = 86_400
WaitS = Annotated[float, msgspec.Meta(ge=0, le=MAX_WAIT_S)]
"""How long an operator lets something wait for running requests: at most a day."""

Dtype = Literal["float32", "bfloat16", "float16", "int8", "int4"]
"""What weights are kept in."""

KvDtype = Literal["bfloat16", "int8"]
"""What keys and values may be asked to be kept in."""

Speculation = Literal["off", "ngram"]
"""Whether a step may choose several tokens of a sequence; which tokens is not touched by it."""

ToolParserName = Literal[
    "none",
    "hermes",
    "qwen3_coder",
    "seed",
    "llama",
    "pythonic",
    "mistral",
    "harmony",
    "deepseek_v3",
    "deepseek_v31",
    "kimi",
    "glm",
    "gemma4",
    "functiongemma",
    "phi",
    "granite",
    "json",
]
"""How a model writes tool calls; `none` leaves them in the text."""

ReasoningParserName = Literal["none", "think", "mistral", "harmony", "seed", "gemma4", "granite"]
"""How a model marks what it thinks; `none` leaves it in the text."""

ModelState = Literal[
    "unloaded", "fetching", "loading", "ready", "asleep", "draining", "unloading", "failed"
]
DeviceState = Literal["starting", "ready", "draining", "failed"]


class DeviceInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A device as discovery found it. For `cpu` the memory is the host's."""

    index: int
    name: str
    vram_total_mb: int
    id: DeviceName
    kind: Literal["cpu", "cuda"] = "cpu"
    compute_capability: str | None = None
    attention_backend: str | None = None
    """What the device's actor picked: `flash-attn-2`, `triton`, `torch-varlen`, `torch-reference`
    or `cpu-kernels`."""
    uuid: str | None = None
    """Of a CUDA device, as the driver names it."""
    kernels: str | None = None
    """Variant of the CPU kernels: `amx`, `avx512`, `avx2` or `portable`."""
    kernels_unavailable_reason: str | None = None
    """Of a CPU, which computes with torch then."""
    kv_dtypes: list[KvDtype] = []
    """What a profile may name as `kv_dtype`; empty until an actor was ready."""


class Discovery(msgspec.Struct, frozen=True, omit_defaults=True):
    """`GET /discovery`: what this host is and could run. Changes only with a restart."""

    hostname: str
    os: str
    kernel: str
    devices: list[DeviceInfo]
    harnesses: list[str]
    version: str
    boot_id: str
    cuda_version: str | None = None
    driver_version: str | None = None
    cuda_unavailable_reason: str | None = None
    quants: list[str] = []
    """What `LoadRequest.quant` may name. neurond has none: it takes what is in the file."""
    max_tensor_parallel: int = 1
    """Devices that one model may be spread over; neurond runs it on one."""


class DeviceHealth(msgspec.Struct, frozen=True, omit_defaults=True):
    """`vram_used_mb` and `vram_free_mb` are measured, not estimated."""

    index: int
    id: DeviceName
    state: DeviceState
    vram_used_mb: int
    vram_free_mb: int
    utilization_pct: int | None = None
    temp_c: int | None = None
    restarts: int = 0


class FailedModel(msgspec.Struct, frozen=True):
    model_id: ModelId
    error: str


class Activation(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far the node is with the models it loads by itself at start."""

    state: Literal["idle", "loading", "done"]
    pending: list[ModelId] = []
    in_progress: ModelId | None = None
    completed: list[ModelId] = []
    failed: list[FailedModel] = []


class Health(msgspec.Struct, frozen=True):
    """`GET /health`: 200 while the node can serve, 503 while it drains."""

    uptime_secs: float
    state_version: int
    """Grows by one with every change to models or devices; see `LoadRequest.state_version`."""
    draining: bool
    devices: list[DeviceHealth]
    activation: Activation


class Servable(msgspec.Struct, frozen=True, omit_defaults=True):
    ok: bool
    reason: str | None = None
    detail: str | None = None


class ModelLimit(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens: prompt and output together, prompt alone, output alone. None is unknown."""

    context: int | None = None
    input: int | None = None
    output: int | None = None


class LoadProgress(msgspec.Struct, frozen=True, omit_defaults=True):
    stage: Literal["queued", "fetching", "preparing", "loading"]
    progress: float | None = None
    """0 to 1 over the stage."""
    eta_s: float | None = None


class KvUse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The blocks of an engine's K/V cache, about a second ago."""

    blocks: int
    used: int = 0
    """Owned by sequences."""
    cached: int = 0
    """Of the others: kept because a later prompt may begin with them."""
    preemptions: int = 0
    """Times a sequence lost its blocks to another one, since the engine was made."""


class DraftUse(msgspec.Struct, frozen=True):
    """What speculation came to, about a second ago, since the engine was made."""

    drafted: int
    accepted: int
    """Of the drafted tokens; each is a step saved."""


class EmbeddingSizes(msgspec.Struct, frozen=True):
    """What a model in memory makes of a text."""

    dimensions: int
    """Numbers in a vector, at most."""
    max_input_tokens: int


class NodeModel(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model on this node: on disk, on its way, or in memory."""

    id: ModelId
    harness: str
    status: ModelState
    devices: list[DeviceName] = []
    vram_used_mb: int = 0
    capabilities: list[str] = []
    """`chat`, `completions`, `embeddings`, `vision`, `tools`, `reasoning`."""
    limit: ModelLimit = ModelLimit()
    servable: Servable = Servable(ok=True)
    loading: LoadProgress | None = None
    running: int = 0
    waiting: int = 0
    weights_id: str | None = None
    size_mb: int | None = None
    """Weights in memory: measured, else told by the file headers and the profile's dtype."""
    dtype: Dtype | None = None
    """What weights are kept in; None while it is not loaded."""
    kv_dtype: Dtype | None = None
    """What keys and values are kept in; None while it is not loaded, and where there are none."""
    kernels: str | None = None
    """What computes it: a variant of the CPU kernels, `torch`, or `script`, which does not compute;
    None while it is not loaded."""
    kernels_unavailable_reason: str | None = None
    """Why torch computes it where the CPU kernels were to."""
    kv: KvUse | None = None
    """None while it is not loaded."""
    drafts: DraftUse | None = None
    """None while nothing was drafted."""
    embedding: EmbeddingSizes | None = None
    """None while it is not loaded, and where it gives no vectors as it is served."""
    tool_parser: ToolParserName | None = None
    """What reads tool calls out of its answers; None until its text was opened."""
    reasoning_parser: ReasoningParserName | None = None
    """What tells its thoughts from its answers; None as above."""


class ModelsResponse(msgspec.Struct, frozen=True):
    """`GET /models`."""

    state_version: int
    models: list[NodeModel]


class ModelProfile(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the fleet's configuration says of a model; the node's own file may say the same.

    The gateway sends its entry of models.toml with a load; None leaves the choice to the node.
    """

    dtype: Dtype | None = None
    """`int8` and `int4` on CPU only; None is the node's choice: it goes by the model's files."""
    context_tokens: Count | None = None
    """Longest sequence; None is the model's own limit, as far as memory goes."""
    max_sequences: Count | None = None
    """Sequences that decode at the same time."""
    kv_cache_mb: Count | None = None
    kv_dtype: KvDtype | None = None
    """`int8` with the CPU kernels only; None is the node's choice."""
    speculation: Speculation | None = None
    """None is `ngram` with the CPU kernels, `off` with torch."""
    chat_template: str | None = None
    """Jinja text that replaces the model's own; in a file also the path of one, relative to it."""
    tool_parser: ToolParserName | None = None
    """None is the one that the template tells."""
    reasoning_parser: ReasoningParserName | None = None
    """None is the one that the template tells."""

    def profile(self) -> "ModelProfile":
        """Return this alone, without what an entry of a file says besides."""
        names = ModelProfile.__struct_fields__
        return ModelProfile(**{name: getattr(self, name) for name in names})


class LoadRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """`POST /models/load`. Answers when the model is ready, whoever else asked for it too.

    With `state_version`, the node refuses with `conflict` if its state has moved on since.
    """

    model_id: ModelId
    harness: str = "torch"
    quant: str | None = None
    tensor_parallel: int = 1
    devices: list[DeviceName] = []
    profile: ModelProfile = ModelProfile()
    state_version: int | None = None


class LoadResponse(msgspec.Struct, frozen=True):
    model: NodeModel
    already_loaded: bool
    state_version: int


class UnloadRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """`POST /models/unload`. Busy models are drained first unless `force` is set."""

    model_id: ModelId
    force: bool = False
    state_version: int | None = None
    only_idle: bool = False
    """Refuse with `conflict` if anything runs on the model or waits for it, whoever sent it."""


class UnloadResponse(msgspec.Struct, frozen=True):
    model_id: ModelId
    state_version: int


class RestartRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """`POST /devices/{id}/restart`: a new process for an idle device.

    Answers when that is ready; models that were loaded there are loaded again after it.
    """

    state_version: int | None = None


class RestartResponse(msgspec.Struct, frozen=True):
    device: DeviceName
    state_version: int


class Endpoint(msgspec.Struct, frozen=True):
    """`GET /models/{id}/endpoint`: where the OpenAI dialect of this model is served."""

    url: str


class Version(msgspec.Struct, frozen=True):
    version: str
    protocol: int
    """Version of the canonical request and event types on `/generate`."""


PROTOCOL_VERSION = 1
