"""Finding the running gateway from the command line."""

import argparse
from pathlib import Path
from typing import Final

from cortex_core.config import parse_address
from cortex_core.ipc.admin import AdminClient
from cortex_core.ipc.socket_paths import may_exist
from cortexd.child_env import ADMIN_SOCKET
from cortexd.config import CortexConfig
from cortexd.config_files import DEFAULT_CONFIG, read_cortex_config, runtime_dir
from cortexd.up.defaults import default_state_dir
from cortexd.up.folders import gateway_run_dir

SERVICE_RUNTIME_DIR: Final = Path("/run/cortex")
"""Where the service's sockets are when systemd makes the folder."""


def admin_client(options: argparse.Namespace) -> AdminClient:
    """Return a client of the gateway that the options mean."""
    return AdminClient(options.socket or admin_socket(_config(options)))


def admin_socket(config: CortexConfig) -> Path:
    """Return the admin socket of the gateway that runs here.

    The first that exists of: the configured one, the service's, the one of `cortex up`.
    """
    own = runtime_dir(config) / ADMIN_SOCKET
    up = gateway_run_dir(default_state_dir()) / ADMIN_SOCKET
    candidates = (own, SERVICE_RUNTIME_DIR / ADMIN_SOCKET, up)
    return next((path for path in candidates if may_exist(path)), own)


def base_url(options: argparse.Namespace) -> str:
    """Return where the gateway's API is."""
    if options.url:
        return str(options.url).rstrip("/")
    address = parse_address(_config(options).gateway.listen, key="gateway.listen")
    return f"http://{address.from_here()}"


def _config(options: argparse.Namespace) -> CortexConfig:
    if options.config is None and not may_exist(DEFAULT_CONFIG):
        return CortexConfig()
    return read_cortex_config(options.config or DEFAULT_CONFIG)
