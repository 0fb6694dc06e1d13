"""A ring of records in shared memory, one producer and one consumer.

| offset | type | what | written by |
|---|---|---|---|
| 0 | u64 | head: bytes ever written | producer |
| 64 | u64 | tail: bytes ever read | consumer |
| 128 | bytes | data, a multiple of 8 | producer |

Head and tail only grow; the place of a count in the data is the count modulo the data's size. A
record is a u32 length, the payload, and padding to 8 bytes. It never wraps: where the rest of the
data is too short, a length of `WRAP` stands and the record begins at the start. The payload is
written before the head and read before the tail, with a fence between, and both counts are
aligned u64 on cache lines of their own.

When the ring is full the producer is told and keeps the record; nothing blocks and nothing is
dropped here.
"""

import struct
from collections.abc import Iterable

from cortex_core.errors import InternalError, ProtocolError
from cortex_core.ipc.fence import Fence
from cortex_core.ipc.segment import Segment

_TAIL_OFFSET = 64
_DATA_OFFSET = 128
_LENGTH = struct.Struct("<I")
WRAP = 0xFFFF_FFFF


def ring_capacity_bytes(segment_bytes: int) -> int:
    """Return how many bytes of records, padding included, a segment of that size can hold."""
    return max(0, segment_bytes - _DATA_OFFSET) // 8 * 8


class _RingView:
    """The parts of the segment that both sides look at."""

    def __init__(self, segment: Segment) -> None:
        self._capacity = ring_capacity_bytes(segment.size_bytes)
        if self._capacity < 16:
            raise InternalError(f"cannot use {segment.size_bytes} bytes as a ring: too small")
        self._head = segment.words(0, 1)
        self._tail = segment.words(_TAIL_OFFSET, 1)
        self._data = segment.bytes_at(_DATA_OFFSET, self._capacity)
        self._fence = Fence()


class RingWriter(_RingView):
    """The producer's end. One thread of one process; the segment is the caller's to close.

    Attributes:
        max_record_bytes: the longest payload that is sure to fit into an empty ring anywhere.
    """

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self.max_record_bytes = self._capacity // 16 * 8 - _LENGTH.size

    @property
    def head(self) -> int:
        """Bytes ever written: what the consumer may read up to."""
        return self._head[0]

    def try_write(self, record: bytes | bytearray | memoryview) -> bool:
        """Append a record and publish it; False, with nothing changed, when there is no room.

        Raises:
            InternalError: the record is longer than `max_record_bytes`.
        """
        return self.write((record,)) == 1

    def write(self, records: Iterable[bytes | bytearray | memoryview]) -> int:
        """Append as many of `records` as there is room for, publish them together, and return how
        many that are.

        Raises:
            InternalError: one of them is longer than `max_record_bytes`; nothing was published.
        """
        capacity, data = self._capacity, self._data
        head, most = self._head[0], self._tail[0] + self._capacity
        # The consumer's reads of what is free came before its tail; our writes must come after it.
        self._fence()
        written = 0
        for record in records:
            size = len(record)
            if size > self.max_record_bytes:
                raise InternalError(
                    f"cannot write a record of {size} bytes: "
                    f"this ring takes {self.max_record_bytes}"
                )
            span = (_LENGTH.size + size + 7) // 8 * 8
            position = head % capacity
            skipped = capacity - position if position + span > capacity else 0
            if head + skipped + span > most:
                break
            if skipped:
                _LENGTH.pack_into(data, position, WRAP)
                position = 0
            _LENGTH.pack_into(data, position, size)
            start = position + _LENGTH.size
            data[start : start + size] = record
            head += skipped + span
            written += 1
        if written:
            self._fence()
            self._head[0] = head
        return written


class RingReader(_RingView):
    """The consumer's end. One thread of one process; the segment is the caller's to close."""

    @property
    def published_head(self) -> int:
        """What the producer has written so far, also when its message about it was lost."""
        return self._head[0]

    @property
    def tail(self) -> int:
        """Bytes ever read."""
        return self._tail[0]

    def read_until(self, head: int) -> list[bytes]:
        """Take every record that lies before `head`, oldest first, and give their room back.

        A `head` that was read before gives an empty list.

        Raises:
            ProtocolError: the ring does not hold what `head` promises. Nothing was consumed; the
                producer cannot be trusted any more.
        """
        tail = self._tail[0]
        if head <= tail:
            return []
        if head - tail > self._capacity or head > self._head[0]:
            raise ProtocolError(
                f"cannot read ring up to {head}: it holds {tail} to {self._head[0]} and "
                f"{self._capacity} bytes"
            )
        self._fence()
        records = self._collect(tail, head)
        self._fence()
        self._tail[0] = head
        return records

    def _collect(self, tail: int, head: int) -> list[bytes]:
        records = []
        while tail < head:
            position = tail % self._capacity
            (size,) = _LENGTH.unpack_from(self._data, position)
            if size == WRAP:
                tail += self._capacity - position
                continue
            start = position + _LENGTH.size
            tail += (_LENGTH.size + size + 7) // 8 * 8
            if start + size > self._capacity or tail > head:
                raise ProtocolError(f"cannot read ring: a record claims {size} bytes at {position}")
            records.append(self._data[start : start + size].tobytes())
        return records
