"""One owner per folder: an advisory lock on the folder itself, gone when its owner is."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from cortex_core.errors import ConfigError


@contextlib.contextmanager
def locked(folder: Path, *, otherwise: str) -> Iterator[None]:
    """Hold `folder`, which exists. `otherwise` tells the user what to do where it is held.

    Raises:
        ConfigError: another process holds it, or it cannot be opened.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"cannot use folder {folder}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"cannot use folder {folder}: {otherwise}") from None
        yield
    finally:
        os.close(fd)
