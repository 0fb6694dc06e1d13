"""Room on disk: asked for before writing, and named when it runs out."""

import errno
import shutil
from pathlib import Path
from typing import Final

from cortex_core.errors import ModelLoadFailed
from cortex_core.sizes import MIB

HEADROOM_BYTES: Final = 32 * MIB
"""Left free on a file system whatever is fetched."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def require_space(folder: Path, needed_bytes: int, *, what: str) -> None:
    """Check that `needed_bytes` more fit into `folder`.

    Raises:
        ModelLoadFailed: they do not; the message has the arithmetic.
    """
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes + HEADROOM_BYTES > free_bytes:
        raise ModelLoadFailed(
            f"cannot fetch {what}: it needs {_mib(needed_bytes)} MiB more and {folder} has "
            f"{_mib(free_bytes)} MiB free of which {_mib(HEADROOM_BYTES)} are kept; free some "
            "space or move state_dir, then try again"
        )


def is_disk_full(error: OSError) -> bool:
    """Whether a write failed because the file system, quota or file size limit is reached."""
    return error.errno in _FULL


def disk_full(what: str, folder: Path, error: OSError) -> ModelLoadFailed:
    """Return the error for a disk that filled up while `what` was written."""
    return ModelLoadFailed(
        f"cannot fetch {what}: the disk of {folder} is full ({error.strerror}); what was fetched "
        "is kept, so free some space and pull again to go on from there"
    )


def remove_tree(folder: Path) -> None:
    """Remove a folder of downloads that served their purpose."""
    shutil.rmtree(folder, ignore_errors=True)


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // MIB)
