"""A table of u32 counts in shared memory: a row for each process that counts, a column per thing.

Only a row's process changes the row, so no count needs a lock; everybody may add up a column. The
counts of a process that died are cleared by its parent, or by the process that takes its row.
"""

from cortex_core.errors import InternalError
from cortex_core.ipc.segment import Segment


def counter_segment_bytes(rows: int, columns: int) -> int:
    """Return the size of a segment for a table of that shape."""
    return 4 * rows * columns


class CounterRow:
    """The counts of one process. Used by one thread of it."""

    def __init__(self, counts: "memoryview[int]") -> None:
        self._counts = counts

    def increment(self, column: int) -> None:
        """Count one up; after 2**32 - 1 comes 0."""
        self._counts[column] = (self._counts[column] + 1) & 0xFFFF_FFFF

    def decrement(self, column: int) -> None:
        """Count one down.

        Raises:
            InternalError: the count is 0 already.
        """
        if self._counts[column] == 0:
            raise InternalError(f"cannot count column {column} down: it is 0")
        self._counts[column] -= 1

    def clear(self) -> None:
        """Set every count of the row to 0."""
        for column in range(len(self._counts)):
            self._counts[column] = 0


class CounterTable:
    """The whole table. The segment is the caller's to close; its size says how many rows there are.

    Raises:
        InternalError: the segment has no room for one row.
    """

    def __init__(self, segment: Segment, columns: int) -> None:
        self.rows = segment.size_bytes // counter_segment_bytes(1, columns)
        self.columns = columns
        if not self.rows:
            raise InternalError(
                f"cannot use {segment.size_bytes} bytes as a table of {columns} columns: too small"
            )
        self._counts = segment.counters(0, self.rows * columns)

    def row(self, index: int) -> CounterRow:
        """Return the row of process number `index`.

        Raises:
            InternalError: there is no such row.
        """
        if not 0 <= index < self.rows:
            raise InternalError(f"cannot use row {index} of a table of {self.rows} rows")
        start = index * self.columns
        return CounterRow(self._counts[start : start + self.columns])

    def sum(self, column: int) -> int:
        """Add up a column over all processes.

        Raises:
            InternalError: there is no such column.
        """
        if not 0 <= column < self.columns:
            raise InternalError(f"cannot add up column {column} of {self.columns}")
        return sum(self._counts[column :: self.columns])

    def clear_row(self, index: int) -> None:
        """Forget what a process that is gone had counted."""
        self.row(index).clear()
