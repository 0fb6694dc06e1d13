"""What `cortex.toml` and `models.toml` say: every key with its unit, default and range.

Plain types; `cortex_core.config.read_config` reads them, refuses unknown keys and applies the
environment overrides (`CORTEX_GATEWAY__LISTEN=...`). All processes of the gateway read the same
files; the fleet actor alone acts on `fleet`, `admission`, `eviction` and the catalogue.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cortex_core.config.template import template_text
from cortex_core.errors import ConfigError
from cortex_core.ids import ModelId, NodeName
from cortex_core.neuron_api import (
    Count,
    ModelLimit,
    ModelProfile,
)
from cortexd.http1.message import parse_endpoint

DEFAULT_RESIDENCY = 100
PINNED_RESIDENCY = 1000

Seconds = Annotated[float, Meta(gt=0)]
Megabytes = Count
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
MODEL_ID_PATTERN = r"^[^:\s]+:\S+$"
BaseUrl = Annotated[str, Meta(pattern=r"^http://[^/?#\s]+/?$")]


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[gateway]`: the processes that clients talk to."""

    listen: str = "0.0.0.0:31313"
    """Address and port of the API."""
    metrics_listen: str = "0.0.0.0:31314"
    """Address and port of `/metrics` and `/health` of the fleet actor."""
    workers: Annotated[int, Meta(ge=1, le=64)] | None = None
    """HTTP worker processes. None is one for each CPU core, at most 4."""
    default_scheme: Name = "hf"
    """Scheme of a model id that a client wrote without one."""
    drain_timeout_s: Annotated[float, Meta(ge=0, le=3600)] = 30.0
    """After SIGTERM, how long running streams may take to finish before they are ended."""
    runtime_dir: str | None = None
    """Folder for sockets. None: $RUNTIME_DIRECTORY, else a folder of this user's own."""
    state_dir: str | None = None
    """Folder for what outlasts the gateway. None: $STATE_DIRECTORY, else a folder of this user's
    own."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """From which level on lines go to stderr."""
    held_bodies_mb: Count = 256
    """MiB of request bodies above 1 MiB that a worker holds until they are answered; others wait
    30 s at most, 64 in all."""
    drop_billing_line: bool = True
    """Leave out the first line of Claude Code's system text, which changes from request to request
    and is for Anthropic's books. With it no prompt is found in a prefix cache."""


class ResponsesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[responses]`: what is kept of `/v1/responses`, unless a request says `store: false`."""

    ttl_s: Seconds = 2_592_000.0
    """How long a response is kept after it, or one that goes on from it, was made."""
    max_mb: Annotated[int, Meta(ge=0)] = 1024
    """All that is kept, in MiB; what was longest unused goes first. 0 keeps nothing."""


class FleetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[fleet]`: how the nodes are watched and how loads are bounded."""

    poll_interval_s: Seconds = 10.0
    """Between two polls of a node on which nothing is loading."""
    loading_poll_interval_s: Seconds = 1.0
    """The same at most while something is loading, or a request waits; less as a load begins."""
    poll_timeout_s: Seconds = 5.0
    """For one poll as a whole."""
    unhealthy_after: Count = 3
    """Polls that fail in a row before a node counts as gone. One is enough after a stream broke."""
    node_grace_s: Annotated[float, Meta(ge=0)] = 15.0
    """How long requests wait for a node that is gone and may be restarting, before they fail."""
    load_timeout_s: Seconds = 1800.0
    """For one load, fetching included."""
    load_retry_s: Seconds = 15.0
    """After a load failed on a node, how long that node is not tried again for this model."""
    max_load_attempts: Count = 5
    """Decisions for one load, when nodes refuse them as stale or go away meanwhile."""


class AdmissionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[admission]`: how much is let in per model. `models.toml` can say otherwise per model."""

    max_in_flight: Count = 64
    """Requests on one replica at a time. HTTP workers may overshoot by one each."""
    max_queue_depth: Count = 256
    """Requests that wait for one model; one more is refused with 429."""
    max_wait_s: Seconds = 120.0
    """Wait for a place, not counting the time the model itself is loading; then 503."""


class EvictionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[eviction]`: who gives way when memory is short."""

    strategy: Literal["lru", "priority"] = "lru"
    """`lru`: the longest unused. `priority`: lowest `residency_priority` first, never above own."""
    collate_s: Annotated[float, Meta(ge=0)] = 20.0
    """How long a busy model may keep others waiting that need its memory, before it is drained."""
    defrag_after_cycles: Annotated[int, Meta(ge=0)] = 50
    """Models that came to a device and went again, after which it gets a new process, once nobody
    has used it for five minutes and nobody waits; models on it are loaded again. 0 is never."""


class NeuronConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[neurons]]`: one node daemon."""

    name: Name
    endpoint: BaseUrl
    """Base URL, for example `http://beast.internal:13131`."""


class CortexConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`cortex.toml`."""

    models_config: str | None = None
    """Path of `models.toml`, relative to this file. None: only what the nodes have on disk."""
    gateway: GatewayConfig = GatewayConfig()
    responses: ResponsesConfig = ResponsesConfig()
    fleet: FleetConfig = FleetConfig()
    admission: AdmissionConfig = AdmissionConfig()
    eviction: EvictionConfig = EvictionConfig()
    neurons: tuple[NeuronConfig, ...] = ()


class ModelConfig(ModelProfile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[models]]` of `models.toml`: one model of the catalogue, with the profile for its loads."""

    id: Annotated[str, Meta(pattern=MODEL_ID_PATTERN)]
    """`scheme:name`."""
    harness: str = "torch"
    """The engine that serves it; nodes name theirs in /discovery."""
    quant: str | None = None
    """Weight format to ask the node for; None leaves it to the node. Only nodes that name it in
    /discovery are asked, and neurond names none."""
    vram_mb: Megabytes | None = None
    """Memory that it takes, over all its devices. None: measured, or from the file sizes."""
    min_devices: Count = 1
    """Devices of one node that it is spread over. More than a node's `max_tensor_parallel` in
    /discovery is not asked of it, and neurond's is 1."""
    min_device_vram_mb: Megabytes | None = None
    """Smallest total memory of a device that may hold it."""
    pinned_on: tuple[NodeName, ...] = ()
    """Nodes that are tried first, and from which it is never evicted."""
    residency_priority: int | None = None
    """Class under `strategy = "priority"`. None is 100, or 1000 with `pinned_on`."""
    min_replicas: Annotated[int, Meta(ge=0)] = 0
    """Replicas that are loaded without being asked for, where room is free, and kept."""
    max_replicas: Count = 1
    """Replicas that may be loaded when those there are full. Never evicts for a second one."""
    ttl_s: Seconds | None = None
    """Unload after so long without a request. None is never."""
    max_in_flight: Count | None = None
    """As in `[admission]`, for this model."""
    max_queue_depth: Count | None = None
    """As in `[admission]`, for this model."""
    max_wait_s: Seconds | None = None
    """As in `[admission]`, for this model."""
    limit: ModelLimit = ModelLimit()
    """Tokens, as shown in the models list; keys left out are shown as the node reports them."""
    cost: dict[str, float] | None = None
    """Shown in the models list as it stands here."""

    @property
    def residency(self) -> int:
        """The class this model is in under `strategy = "priority"`."""
        if self.residency_priority is not None:
            return self.residency_priority
        return PINNED_RESIDENCY if self.pinned_on else DEFAULT_RESIDENCY


class TiersConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[tiers]`: who answers for Anthropic's own lines of models.

    A client that names `claude-opus-4-8`, or any other model with `claude` and `opus` in its name
    that nothing here is called, gets the model `opus`.
    """

    opus: ModelId | None = None
    sonnet: ModelId | None = None
    haiku: ModelId | None = None
    fable: ModelId | None = None
    mythos: ModelId | None = None

    def targets(self) -> dict[str, ModelId]:
        """Return the model of each line that has one."""
        lines = msgspec.structs.asdict(self)
        return {line: target for line, target in lines.items() if target is not None}


class ModelsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`models.toml`: the catalogue and other names for what is in it."""

    models: tuple[ModelConfig, ...] = ()
    aliases: dict[str, ModelId] = {}
    """Name that clients use to model id. An alias wins over a model id of the same text."""
    tiers: TiersConfig = TiersConfig()


def check_cortex(config: CortexConfig, *, file: str) -> CortexConfig:
    """Check what single keys cannot say; `file` is named in errors.

    Raises:
        ConfigError: an endpoint has no host or port that there can be, or two neurons share a name
            or an endpoint.
    """
    for number, neuron in enumerate(config.neurons):
        try:
            parse_endpoint(neuron.endpoint)
        except ConfigError as error:
            key = f"neurons[{number}].endpoint"
            raise ConfigError(f"cannot use {file}: {key}: {error.message}", param=key) from error
    for field in ("name", "endpoint"):
        seen: set[str] = set()
        for number, neuron in enumerate(config.neurons):
            value = getattr(neuron, field).rstrip("/")
            if value in seen:
                raise ConfigError(
                    f"cannot use {file}: neurons[{number}].{field}: {value!r} is there twice",
                    param=f"neurons[{number}].{field}",
                )
            seen.add(value)
    return config


def check_models(models: ModelsConfig, *, path: Path, neurons: set[str]) -> ModelsConfig:
    """Check names against each other and read chat templates that are given as paths.

    Raises:
        ConfigError: an id is there twice, a node in `pinned_on` is unknown, replica bounds are
            the wrong way round, or a chat template cannot be read.
    """
    checked: list[ModelConfig] = []
    seen: set[str] = set()
    for number, model in enumerate(models.models):
        where = f"models[{number}]"
        if model.id in seen:
            raise _wrong(path, f"{where}.id", f"{model.id!r} is there twice")
        seen.add(model.id)
        unknown = [name for name in model.pinned_on if name not in neurons]
        if unknown:
            known = ", ".join(sorted(neurons)) or "none"
            cause = f"no neuron is named {unknown[0]!r}; cortex.toml has: {known}"
            raise _wrong(path, f"{where}.pinned_on", cause)
        if model.min_replicas > model.max_replicas:
            cause = f"{model.min_replicas} is more than max_replicas, {model.max_replicas}"
            raise _wrong(path, f"{where}.min_replicas", cause)
        checked.append(_with_template_text(model, path, where))
    return msgspec.structs.replace(models, models=tuple(checked))


def _with_template_text(model: ModelConfig, path: Path, where: str) -> ModelConfig:
    if model.chat_template is None:
        return model
    text = template_text(model.chat_template, file=path, key=f"{where}.chat_template")
    return msgspec.structs.replace(model, chat_template=text)


def _wrong(path: Path, key: str, cause: str) -> ConfigError:
    return ConfigError(f"cannot use {path}: {key}: {cause}", param=key)
