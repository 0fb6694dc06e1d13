"""Files that appear whole or not at all, among others that nobody needs any more."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cortex_core.errors import ModelLoadFailed
from neurond.sources.disk import HEADROOM_BYTES

SUFFIX: Final = ".partial"


@contextlib.contextmanager
def partial_file(path: Path, size_bytes: int) -> Iterator[int]:
    """Give a file of `size_bytes` zeros to be filled; it gets its name after the block.

    The disk's room is taken at once, so that mapped pages can be written to. Each writer has a file
    of its own; the last one's stays. A writer holds a lock while it lives: what others left behind
    is removed.

    Raises:
        ModelLoadFailed: the folder cannot be written to, or has no room.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        _remove_abandoned(path.parent)
        _require_space(path.parent, size_bytes)
        descriptor, name = tempfile.mkstemp(SUFFIX, f".{path.name}.", path.parent)
        own = Path(name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(descriptor, 0o644)
            os.posix_fallocate(descriptor, 0, size_bytes)
            yield descriptor
            os.fsync(descriptor)
            own.replace(path)
            _sync(path.parent)
        except BaseException:
            own.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
    except OSError as ex:
        raise ModelLoadFailed(
            f"cannot write {path}: {ex.strerror}; make {path.parent} writable and free "
            f"{size_bytes} bytes there, or the weights are packed again at each load"
        ) from ex


def remove_except(folder: Path, prefix: str, suffix: str) -> None:
    """Remove whole files from `folder` but those whose names begin and end so."""
    for file in folder.glob("*.bin"):
        if not (file.name.startswith(prefix) and file.name.endswith(suffix)):
            with contextlib.suppress(OSError):
                file.unlink()


def _remove_abandoned(folder: Path) -> None:
    for file in folder.glob(f".*{SUFFIX}"):
        with contextlib.suppress(OSError), file.open("rb+") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()


def _require_space(folder: Path, size_bytes: int) -> None:
    if shutil.disk_usage(folder).free < size_bytes + HEADROOM_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
