"""Making memory resident before it is written to."""

import ctypes
import mmap
import os
from typing import Final

_MADV_POPULATE_WRITE: Final = 23
"""Since Linux 5.14. `mmap` does not name it, and its `madvise` would keep the interpreter."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def populate(address: int, size_bytes: int) -> None:
    """Make the pages resident that this memory lies in, as a write to each of them would.

    What they hold stays. Other Python threads run meanwhile.

    Raises:
        OSError: the kernel is too old to know this (EINVAL), or has no memory; some of the pages
            may be resident.
    """
    start = address - address % mmap.PAGESIZE
    length = ctypes.c_size_t(address + size_bytes - start)
    if _LIBC.madvise(ctypes.c_void_p(start), length, _MADV_POPULATE_WRITE):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
