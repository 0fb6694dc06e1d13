"""Where sockets may lie, for those who make no socket themselves: nothing here needs ZeroMQ."""

import os
from pathlib import Path

from cortex_core.errors import ConfigError

UNIX_PATH_MAX_BYTES = 107
"""Longest path that fits `sockaddr_un.sun_path` with its final zero."""


def check_socket_path(path: Path) -> None:
    """Refuse a path that the kernel cannot bind.

    Raises:
        ConfigError: the path has more than `UNIX_PATH_MAX_BYTES` bytes.
    """
    length = len(os.fsencode(path))
    if length > UNIX_PATH_MAX_BYTES:
        raise ConfigError(
            f"cannot use socket path {path}: it has {length} bytes, the limit is "
            f"{UNIX_PATH_MAX_BYTES}; choose a shorter runtime or state folder"
        )


def may_exist(path: Path) -> bool:
    """Tell whether `path` is there, or this user may not look: then using it says why."""
    try:
        return path.exists()
    except PermissionError:
        return True


def make_runtime_dir(path: Path) -> None:
    """Make the folder for sockets, for this user only (mode 0700), unless it exists.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as ex:
        raise ConfigError(f"cannot make runtime folder {path}: {ex.strerror}") from ex
