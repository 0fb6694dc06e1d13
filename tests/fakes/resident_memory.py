"""Which of this process's memory is resident, as the kernel says."""

import ctypes
import errno
import mmap

import pytest

from neurond.kernels.memory import Buffer
from neurond.kernels.populate import populate

_LIBC = ctypes.CDLL(None, use_errno=True)


def resident_pages(address: int, size_bytes: int) -> list[bool]:
    """Return for each page whether it is resident; `address` is where a page begins."""
    told = (ctypes.c_ubyte * -(-size_bytes // mmap.PAGESIZE))()
    failed = _LIBC.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes), told)
    assert not failed, errno.errorcode[ctypes.get_errno()]
    return [bool(page & 1) for page in told]


def resident_bytes(buffer: Buffer) -> int:
    """Return how much of a buffer is resident, in whole pages."""
    return sum(resident_pages(buffer.address, buffer.size_bytes)) * mmap.PAGESIZE


def skip_where_nothing_populates() -> None:
    """Skip the test on a kernel that cannot make memory resident ahead of need."""
    page = Buffer(1)
    try:
        populate(page.address, page.size_bytes)
    except OSError as ex:
        if ex.errno != errno.EINVAL:
            raise
        pytest.skip("this kernel does not populate: it is older than Linux 5.14")
