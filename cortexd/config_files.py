"""Finds and reads the gateway's two configuration files, and the folders it uses."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cortex_core.config import read_config
from cortexd.config import CortexConfig, ModelsConfig, check_cortex, check_models

DEFAULT_CONFIG = Path("/etc/cortex/cortex.toml")
ENV_PREFIX = "CORTEX"
MAX_DEFAULT_WORKERS = 4


class Configuration(msgspec.Struct, frozen=True):
    """Both files, read and checked."""

    cortex: CortexConfig
    models: ModelsConfig


def read_cortex_config(path: Path) -> CortexConfig:
    """Read `cortex.toml` with the environment's overrides.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong.
    """
    config = read_config(path, CortexConfig, env_prefix=ENV_PREFIX)
    return check_cortex(config, file=str(path))


def read_configuration(path: Path) -> Configuration:
    """Read `cortex.toml` and the `models.toml` it names.

    Raises:
        ConfigError: one of them cannot be read, or something in it is wrong.
    """
    cortex = read_cortex_config(path)
    if cortex.models_config is None:
        return Configuration(cortex, ModelsConfig())
    models_path = path.parent / cortex.models_config
    models = read_config(models_path, ModelsConfig, env_prefix=None)
    neurons = {neuron.name for neuron in cortex.neurons}
    return Configuration(cortex, check_models(models, path=models_path, neurons=neurons))


def http_workers(config: CortexConfig) -> int:
    """Return how many HTTP workers there are: as configured, else one for each core we may use.

    Without a configured number there are at most `MAX_DEFAULT_WORKERS`.
    """
    return config.gateway.workers or min(len(os.sched_getaffinity(0)), MAX_DEFAULT_WORKERS)


def runtime_dir(config: CortexConfig, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder that the sockets of this gateway lie in; it may not exist yet.

    The first of: the configuration's, systemd's, the session's, one in /tmp of this user.
    """
    if config.gateway.runtime_dir is not None:
        return Path(config.gateway.runtime_dir)
    if systemd := environment.get("RUNTIME_DIRECTORY"):
        return Path(systemd.split(":")[0])
    if session := environment.get("XDG_RUNTIME_DIR"):
        return Path(session) / "cortex"
    return Path(f"/tmp/cortex-{os.getuid()}")  # noqa: S108 - made with mode 0700 and checked


def state_dir(config: CortexConfig, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for what outlasts the gateway; it may not exist yet.

    The first of: the configuration's, systemd's, this user's own.
    """
    if config.gateway.state_dir is not None:
        return Path(config.gateway.state_dir)
    if systemd := environment.get("STATE_DIRECTORY"):
        return Path(systemd.split(":")[0])
    own = environment.get("XDG_STATE_HOME") or Path(environment.get("HOME", "/")) / ".local/state"
    return Path(own) / "cortex" / "gateway"
