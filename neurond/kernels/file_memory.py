"""A file's bytes in memory: the file's own pages first, this process's huge pages later.

The system still has the pages of a file that was written or read not long ago, so mapping them
costs nothing to speak of. Huge pages, which single streams are faster with, have to be found,
cleared and filled: that is done piece by piece, while there is nothing else to do, beneath
addresses that stay as they are.
"""

import ctypes
import errno
import mmap
import os
import weakref
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from neurond.kernels.populate import populate_to_read

PIECE_BYTES: Final = 4 << 20
"""Copied at once, in a millisecond where the system has such pages, in some ten where it has to
find them. Huge pages divide it."""
HUGE_PAGE_BYTES: Final = 1 << 21
_MAP_FIXED: Final = 0x10
_MREMAP_MAYMOVE_FIXED: Final = 3
_MADV_HUGEPAGE: Final = 14
_EHWPOISON: Final = 133  # Python does not name it
_CANNOT_BE_READ: Final = (errno.EFAULT, _EHWPOISON, errno.EIO)
_MAP_FAILED: Final = ctypes.c_void_p(-1).value
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long),
)
_LIBC.mremap.restype = ctypes.c_void_p
_LIBC.mremap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p),
)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class FileMemory:
    """Owns its addresses, which are given back with the last reference to it and to `bytes`.

    Until all of it was copied the file must not be made shorter, which would end this process where
    it reads on; removing or replacing it does no harm.

    Attributes:
        bytes: the whole file, read-only; begins where a huge page may.
    """

    def __init__(self, path: Path) -> None:
        """Map the file; reads all of it that is not in memory yet.

        Raises:
            OSError: it cannot be read (EIO where its disk fails, or where it was made shorter
                meanwhile), or there are no such addresses (ENOMEM).
            ValueError: it is empty.
        """
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if not size_bytes:
                raise ValueError("it is empty")
            # Python's mapping owns all that is put inside it, and unmaps it at the end.
            reserved = mmap.mmap(
                -1,
                size_bytes + HUGE_PAGE_BYTES,
                flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
                prot=mmap.PROT_READ,
            )
            whole = np.frombuffer(reserved, np.uint8)
            start = -int(whole.ctypes.data) % HUGE_PAGE_BYTES
            self.bytes: NDArray[np.uint8] = whole[start : start + size_bytes]
            self._address = int(self.bytes.ctypes.data)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
            flags = mmap.MAP_PRIVATE | _MAP_FIXED
            _mapped(self._address, size_bytes, mmap.PROT_READ, flags, file.fileno())
        _read_all(self._address, size_bytes)
        self._num_owned = 0
        _LIVING[self._address] = self

    @property
    def num_owned_bytes(self) -> int:
        """How many of the first bytes lie in memory of this process."""
        return self._num_owned

    def own_piece(self) -> bool:
        """Copy the next piece into memory of this process; return whether there was one.

        What it holds and where it lies stays, also for threads that read it meanwhile. Called by
        one thread at a time; takes milliseconds.

        Raises:
            OSError: the system does not give what it takes; all stays as it is.
        """
        start = self._num_owned
        size_bytes = min(PIECE_BYTES, len(self.bytes) - start)
        if size_bytes <= 0:
            return False
        target = self._address + start
        copy = _huge_memory(size_bytes)
        try:
            ctypes.memmove(copy, target, size_bytes)
            moved = _LIBC.mremap(copy, size_bytes, size_bytes, _MREMAP_MAYMOVE_FIXED, target)
            if moved == _MAP_FAILED:
                raise _error()
        except BaseException:
            _LIBC.munmap(copy, size_bytes)
            raise
        self._num_owned += size_bytes
        return True


_LIVING: Final = weakref.WeakValueDictionary[int, FileMemory]()
"""By address. Threads that load add to it while others ask."""


def borrowed_bytes() -> int:
    """Return how many bytes of files this process needs in memory and has no copy of.

    The system counts them as free, as page cache that it can take back; whatever takes them has
    them read again for each step, and takes the place that their copies are for. From any thread.
    """
    files = (reference() for reference in _LIVING.valuerefs())
    return sum(len(file.bytes) - file.num_owned_bytes for file in files if file is not None)


def _huge_memory(size_bytes: int) -> int:
    """Return the address of new memory that begins where a huge page may; the caller unmaps it."""
    anywhere = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    pages_bytes = -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
    access = mmap.PROT_READ | mmap.PROT_WRITE
    found = _mapped(None, pages_bytes + HUGE_PAGE_BYTES, access, anywhere, -1)
    address = found + -found % HUGE_PAGE_BYTES
    before, behind = address - found, found + HUGE_PAGE_BYTES - address
    if before:
        _LIBC.munmap(found, before)
    if behind:
        _LIBC.munmap(address + pages_bytes, behind)
    _LIBC.madvise(address, pages_bytes, _MADV_HUGEPAGE)  # small ones do where there are none
    return address


def _read_all(address: int, size_bytes: int) -> None:
    """Make a mapped file resident, so that nothing of it has to be read when it is used.

    Unlike `MAP_POPULATE` this says what cannot be read.
    """
    try:
        populate_to_read(address, size_bytes)
    except OSError as ex:
        if ex.errno in _CANNOT_BE_READ:
            cause = "its disk fails, or it was made shorter while it was read"
            raise OSError(errno.EIO, cause) from ex
        if ex.errno != errno.EINVAL:  # an older kernel reads each page when it is used
            raise


def _mapped(address: int | None, size_bytes: int, access: int, flags: int, fd: int) -> int:
    found: int = _LIBC.mmap(address, size_bytes, access, flags, fd, 0)
    if found == _MAP_FAILED:
        raise _error()
    return found


def _error() -> OSError:
    error = ctypes.get_errno()
    return OSError(error, os.strerror(error))
