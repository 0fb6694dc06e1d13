"""Which ranges of a fixed area are taken. Pure: it hands out offsets and touches no memory."""

import bisect

from cortex_core.errors import InternalError

ALIGNMENT_BYTES = 16


class Arena:
    """First-fit allocator over `size_bytes`; neighbouring free ranges are always one range."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes // ALIGNMENT_BYTES * ALIGNMENT_BYTES
        # Sorted by offset; never adjacent, never empty.
        self._free: list[tuple[int, int]] = [(0, self.size_bytes)] if self.size_bytes else []
        self._taken: dict[int, int] = {}

    @property
    def free_bytes(self) -> int:
        return sum(size for _, size in self._free)

    @property
    def largest_free_bytes(self) -> int:
        """The longest request that succeeds now."""
        return max((size for _, size in self._free), default=0)

    def allocate(self, size_bytes: int) -> int | None:
        """Return the offset of a range of at least `size_bytes`, or None when none is free.

        Offsets are multiples of `ALIGNMENT_BYTES`.

        Raises:
            InternalError: the size is not positive.
        """
        if size_bytes <= 0:
            raise InternalError(f"cannot allocate {size_bytes} bytes")
        wanted = -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        for place, (offset, size) in enumerate(self._free):
            if size < wanted:
                continue
            if size == wanted:
                del self._free[place]
            else:
                self._free[place] = (offset + wanted, size - wanted)
            self._taken[offset] = wanted
            return offset
        return None

    def free(self, offset: int) -> None:
        """Give back the range that begins at `offset`.

        Raises:
            InternalError: no range that is taken begins there.
        """
        size = self._taken.pop(offset, None)
        if size is None:
            raise InternalError(f"cannot free offset {offset}: nothing is allocated there")
        place = bisect.bisect(self._free, (offset, 0))
        if place < len(self._free) and self._free[place][0] == offset + size:
            size += self._free.pop(place)[1]
        if place > 0:
            before, before_size = self._free[place - 1]
            if before + before_size == offset:
                self._free[place - 1] = (before, before_size + size)
                return
        self._free.insert(place, (offset, size))
