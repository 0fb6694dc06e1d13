"""The folder that a node keeps models in: is it usable?"""

import os
from pathlib import Path

from cortex_core.errors import ConfigError


def make_state_dir(path: Path) -> None:
    """Make the folder, unless it is there.

    Raises:
        ConfigError: it cannot be made, or not be written to by this user.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as ex:
        raise _unusable(path, ex.strerror or str(ex)) from ex
    if not _writable(path):
        raise _unusable(path, "it is not writable")


def check_state_dir(path: Path) -> str | None:
    """Look without making anything; returns what keeps this user, but maybe no other, from it.

    Raises:
        ConfigError: nobody can use it.
    """
    existing = existing_part(path)
    if not existing.is_dir():
        raise _unusable(path, f"{existing} is not a folder")
    if not _writable(existing):
        return f"{existing} is not writable for this user; `neuron serve` must run as one who may"
    return None


def existing_part(path: Path) -> Path:
    """Return the innermost part of `path` that is there and may be looked at."""
    root = path.absolute()
    return next(place for place in (root, *root.parents) if _exists(place))


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # a folder on the way may not be looked into
        return False


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _unusable(path: Path, cause: str) -> ConfigError:
    return ConfigError(
        f"cannot use state_dir {path}: {cause}; name another folder, or see to its rights",
        param="state_dir",
    )
