"""Making memory resident before it is used."""

import ctypes
import mmap
import os
from typing import Final

_MADV_POPULATE_READ: Final = 22
_MADV_POPULATE_WRITE: Final = 23
"""Since Linux 5.14. `mmap` does not name them, and its `madvise` would keep the interpreter."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def populate(address: int, size_bytes: int) -> None:
    """Make the pages resident that this memory lies in, as a write to each of them would.

    What they hold stays. Other Python threads run meanwhile.

    Raises:
        OSError: the kernel is too old to know this (EINVAL), or has no memory; some of the pages
            may be resident.
    """
    _populate(address, size_bytes, _MADV_POPULATE_WRITE)


def populate_to_read(address: int, size_bytes: int) -> None:
    """As `populate`, as reading each page would: those of a file stay the file's.

    Raises:
        OSError: as `populate`, or the file cannot be read (EFAULT, EHWPOISON, EIO).
    """
    _populate(address, size_bytes, _MADV_POPULATE_READ)


def _populate(address: int, size_bytes: int, advice: int) -> None:
    start = address - address % mmap.PAGESIZE
    length = ctypes.c_size_t(address + size_bytes - start)
    if _LIBC.madvise(ctypes.c_void_p(start), length, advice):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
