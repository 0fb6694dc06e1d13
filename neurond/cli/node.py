"""Finding the running node from the command line."""

import argparse
from pathlib import Path
from typing import Final

from cortex_core.ipc.admin import AdminClient
from cortex_core.ipc.socket_paths import may_exist
from neurond.config import ADMIN_SOCKET, NeuronConfig, read_neuron_config

SERVICE_RUNTIME_DIR: Final = Path("/run/neuron")
"""Where the service's sockets are when systemd makes the folder."""


def admin_client(options: argparse.Namespace) -> AdminClient:
    """Return a client of the node that the configuration describes."""
    return AdminClient(admin_socket(read_neuron_config(options.config)))


def admin_socket(config: NeuronConfig) -> Path:
    """Return the path of the node's admin socket."""
    own = config.runtime_folder() / ADMIN_SOCKET
    service = SERVICE_RUNTIME_DIR / ADMIN_SOCKET
    return service if not may_exist(own) and may_exist(service) else own
