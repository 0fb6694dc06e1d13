"""What `neuron.toml` says: every key, its type and its default."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from cortex_core.config.reader import read_config
from cortex_core.config.template import template_text
from cortex_core.errors import ConfigError, CortexError
from cortex_core.ids import DeviceName, ModelId, parse_model_id
from cortex_core.neuron_api import Count, LoadRequest, ModelProfile
from cortex_core.sizes import MIB
from neurond.images.limits import MAX_FDS, ImageLimits
from neurond.sources.fetch_messages import SourceSettings

DEFAULT_PATH: Final = Path("/etc/neuron/neuron.toml")
ENV_PREFIX: Final = "NEURON"
ADMIN_SOCKET: Final = "admin.sock"
"""The node listens here for operators; in the folder for sockets."""

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class DefaultModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that the node loads by itself at start, in the order of the file."""

    model_id: str
    devices: list[str] = []


class ModelSettings(ModelProfile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How this node runs a model, whoever asks for it; a load request's own profile goes before."""

    id: str


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the node takes at most."""

    max_requests: Count = 256
    """Requests on one device, running and waiting; one more is refused."""
    max_body_mb: Count = 64
    """MiB of one HTTP request. Above what the gateway takes: what it passes on can be longer."""
    held_bodies_mb: Count = 512
    """MiB of all bodies above 1 MiB that are held until they are answered; others wait 30 s at
    most, 64 in all."""
    text_threads: Count = 2
    """Threads that render templates and tokenise."""
    max_images: Annotated[int, msgspec.Meta(ge=1, le=MAX_FDS)] = 32
    """In one request."""
    max_image_mb: Count = 20
    """MiB of one image's file."""
    image_megapixels: Annotated[float, msgspec.Meta(ge=0.01, le=100)] = 4.0
    """A larger image is scaled down to so many before a model gets it."""

    def of_images(self) -> ImageLimits:
        """Return those of images."""
        return ImageLimits(
            max_images=self.max_images,
            max_bytes=self.max_image_mb * MIB,
            max_seen_pixels=int(self.image_megapixels * 1_000_000),
        )


class NeuronConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. The port and the devices are all that several nodes on a host differ in."""

    port: Port = 13131
    """0 lets the kernel choose."""
    listen: str = "0.0.0.0"  # noqa: S104 - a node is there to be reached; the docs say so
    """Address to listen on."""
    state_dir: str = "/var/lib/neuron"
    runtime_dir: str | None = None
    """For sockets; None is `$RUNTIME_DIRECTORY`, else `run/PORT` in `state_dir`."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    devices: list[str] = []
    """Names such as `cuda-0` or `cpu`; none named means all that are found."""
    threads: Count | None = None
    """Of a CPU device; None is what the process may use."""
    default_scheme: str = "pypi"
    """Source of model ids that name none."""
    drain_timeout_s: Seconds = 30.0
    """How long running streams may go on after SIGTERM."""
    sources: SourceSettings = SourceSettings()
    limits: Limits = Limits()
    default_models: list[DefaultModel] = []
    models: list[ModelSettings] = []

    def model_id(self, text: str) -> ModelId:
        """Return the full id for what a user wrote.

        Raises:
            InvalidRequest: it is no model id.
        """
        return parse_model_id(text, default_scheme=self.default_scheme).id

    def runtime_folder(self, environ: Mapping[str, str] | None = None) -> Path:
        """Return the folder for sockets; systemd's is named in `$RUNTIME_DIRECTORY`."""
        if self.runtime_dir is not None:
            return Path(self.runtime_dir)
        env = os.environ if environ is None else environ
        given = env.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        return Path(given) if given else Path(self.state_dir) / "run" / str(self.port)

    def default_loads(self) -> list[LoadRequest]:
        """Return the loads of the node's start, in order."""
        return [
            LoadRequest(
                model_id=self.model_id(model.model_id),
                devices=[DeviceName(name) for name in model.devices],
            )
            for model in self.default_models
        ]

    def device_names(self) -> list[DeviceName]:
        """Return the devices to use; empty for all that are found."""
        return [DeviceName(name) for name in self.devices]

    def profiles(self) -> dict[ModelId, ModelProfile]:
        """Return what the file says of models, by id."""
        return {self.model_id(model.id): model.profile() for model in self.models}


def read_neuron_config(path: Path | None) -> NeuronConfig:
    """Read and check the file; None is the usual place, where it may be absent.

    Chat templates that are named by path come back as their text.

    Raises:
        ConfigError: what is wrong, and where.
    """
    source = path or DEFAULT_PATH
    config = read_config(source, NeuronConfig, env_prefix=ENV_PREFIX, optional=path is None)
    _check_ids(source, config)
    models = [_with_template_text(source, place, m) for place, m in enumerate(config.models)]
    return msgspec.structs.replace(config, models=models)


def _check_ids(source: Path, config: NeuronConfig) -> None:
    named = [(f"models[{place}].id", model.id) for place, model in enumerate(config.models)]
    named += [
        (f"default_models[{place}].model_id", model.model_id)
        for place, model in enumerate(config.default_models)
    ]
    for key, text in named:
        try:
            config.model_id(text)
        except CortexError as ex:
            raise ConfigError(f"cannot read {source}: {key}: {ex.message}", param=key) from ex
    seen: set[ModelId] = set()
    for place, model in enumerate(config.models):
        key = f"models[{place}].id"
        model_id = config.model_id(model.id)
        if model_id in seen:
            raise ConfigError(f"cannot use {source}: {key}: {model_id} is there twice", param=key)
        seen.add(model_id)


def _with_template_text(source: Path, place: int, model: ModelSettings) -> ModelSettings:
    if model.chat_template is None:
        return model
    key = f"models[{place}].chat_template"
    text = template_text(model.chat_template, file=source, key=key)
    return msgspec.structs.replace(model, chat_template=text)
