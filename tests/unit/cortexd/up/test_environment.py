"""What the daemons of `cortex up` take from its environment."""

from pathlib import Path

import pytest

from cortexd.config_files import ENV_PREFIX
from cortexd.up.configs import cortex_toml, neuron_toml
from cortexd.up.defaults import DEFAULT_MODEL, UpPorts
from cortexd.up.environment import daemon_environment
from cortexd.up.folders import UpFolders, folders_of

FOLDERS: UpFolders = folders_of(Path("/state"))
PORTS = UpPorts(1, 2, 3)
FILES = {
    ENV_PREFIX: cortex_toml(FOLDERS, PORTS),
    "NEURON": neuron_toml(FOLDERS, PORTS, DEFAULT_MODEL),
}


@pytest.mark.parametrize(
    "variable",
    [
        "NEURON_PORT",
        "NEURON_port",
        "NEURON_RUNTIME_DIR",
        "NEURON_DEFAULT_MODELS",
        "CORTEX_GATEWAY__LISTEN",
        "CORTEX_GATEWAY",
        "CORTEX_NEURONS",
        "CORTEX_MODELS_CONFIG",
        "NOTIFY_SOCKET",
    ],
)
def test_what_cortex_up_sets_itself_cannot_be_overridden(variable: str) -> None:
    assert daemon_environment({variable: "45999", "PATH": "/bin"}, FILES) == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "variable",
    [
        "NEURON_THREADS",
        "NEURON_LIMITS__MAX_REQUESTS",
        "CORTEX_GATEWAY__LOG_LEVEL",
        "CORTEX_EVICTION__STRATEGY",
        "NEURON_RT_LOG_LEVEL",
        "HF_TOKEN",
        "PORT",
    ],
)
def test_everything_else_is_passed_on(variable: str) -> None:
    assert daemon_environment({variable: "1"}, FILES) == {variable: "1"}
