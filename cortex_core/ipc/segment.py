"""Shared memory without a name: a memfd, mapped here, passed to other processes by descriptor.

The creator hands the descriptor to a child (`pass_fds`), which attaches. Nothing lies in a file
system, so the memory is gone with the last process that has it, however that process ended.
"""

import contextlib
import fcntl
import mmap
import os
from typing import Any, Self, TypeVar

from cortex_core.errors import InternalError, ProtocolError

_T = TypeVar("_T", int, float)
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Segment:
    """A mapped range of memory of fixed size, shared with whoever attaches the same descriptor.

    Owns `fd` and the mapping; `close` gives both back and is idempotent. New memory is zeroed.

    Attributes:
        fd: descriptor of the memfd; close-on-exec, so it reaches a child through `pass_fds` only.
        size_bytes: length of the mapping.
        buf: the mapping, writable.
    """

    def __init__(self, fd: int, size_bytes: int) -> None:
        self.fd = fd
        self.size_bytes = size_bytes
        self._map = mmap.mmap(fd, size_bytes)
        self.buf = memoryview(self._map)
        self._views: list[memoryview[Any]] = []
        self._closed = False

    @classmethod
    def create(cls, name: str, size_bytes: int) -> Self:
        """Make a segment that can neither grow nor shrink. `name` only shows in /proc/*/maps.

        Raises:
            InternalError: the size is not positive, or the kernel has no memory for it.
        """
        if size_bytes <= 0:
            raise InternalError(f"cannot create segment {name}: its size is {size_bytes} bytes")
        try:
            fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(fd, size_bytes)
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
                return cls(fd, size_bytes)
            except BaseException:
                os.close(fd)
                raise
        except (OSError, ValueError) as ex:
            raise InternalError(f"cannot create segment {name}: {ex}") from ex

    @classmethod
    def attach(cls, fd: int) -> Self:
        """Map a segment that another process made, and own `fd` from now on.

        Raises:
            ProtocolError: `fd` is no memory that can be mapped, or there is no room for it; `fd` is
                closed.
        """
        try:
            return cls(fd, os.fstat(fd).st_size)
        except (OSError, ValueError) as ex:
            with contextlib.suppress(OSError):  # it may be no descriptor at all
                os.close(fd)
            raise ProtocolError(f"cannot attach segment at descriptor {fd}: {ex}") from ex

    def words(self, offset: int, count: int) -> "memoryview[int]":
        """Return `count` u64 from byte `offset` on; released when the segment is closed."""
        return self._keep(self._range(offset, 8 * count).cast("Q"))

    def counters(self, offset: int, count: int) -> "memoryview[int]":
        """Return `count` u32 from byte `offset` on; released when the segment is closed."""
        return self._keep(self._range(offset, 4 * count).cast("I"))

    def doubles(self, offset: int, count: int) -> "memoryview[float]":
        """Return `count` f64 from byte `offset` on; released when the segment is closed."""
        return self._keep(self._range(offset, 8 * count).cast("d"))

    def bytes_at(self, offset: int, size_bytes: int) -> "memoryview[int]":
        """Return a range of bytes; released when the segment is closed."""
        return self._keep(self._range(offset, size_bytes))

    def _range(self, offset: int, size_bytes: int) -> "memoryview[int]":
        if offset < 0 or offset + size_bytes > self.size_bytes:
            raise InternalError(
                f"cannot view bytes {offset} to {offset + size_bytes} of a segment of "
                f"{self.size_bytes} bytes"
            )
        return self.buf[offset : offset + size_bytes]

    def _keep(self, view: "memoryview[_T]") -> "memoryview[_T]":
        self._views.append(view)
        return view

    def close(self) -> None:
        """Release every view made here, the mapping and `fd`.

        A slice of `buf` that somebody still holds keeps the mapping, not the descriptor, until it
        is dropped.
        """
        if self._closed:
            return
        self._closed = True
        for view in (*self._views, self.buf):
            with contextlib.suppress(BufferError):
                view.release()
        self._views.clear()
        with contextlib.suppress(BufferError):
            self._map.close()
        os.close(self.fd)
