"""The latest of something, from one writer to any number of readers that never wait for it.

| offset | type | what |
|---|---|---|
| 0 | u64 | version of the last complete publication, 0 before the first |
| 64 + i * slot | u64 | seal of slot i (0 or 1): version of its content, 0 while it is written |
| 72 + i * slot | u64 | length of the payload |
| 80 + i * slot | bytes | payload |

Version v lies in slot v modulo 2, so a reader is only disturbed by a writer that publishes twice
while it copies, and a writer killed half-way leaves the previous version whole. A new writer on the
same segment goes on counting.
"""

from cortex_core.errors import InternalError, ProtocolError
from cortex_core.ipc.fence import Fence
from cortex_core.ipc.segment import Segment

_SLOTS_OFFSET = 64
_SLOT_HEADER_BYTES = 16
_READ_ATTEMPTS = 64


def snapshot_segment_bytes(max_payload_bytes: int) -> int:
    """Return the size of a segment for payloads of up to `max_payload_bytes`."""
    return _SLOTS_OFFSET + 2 * (_SLOT_HEADER_BYTES + -(-max_payload_bytes // 8) * 8)


class _Slot:
    def __init__(self, segment: Segment, index: int, slot_bytes: int) -> None:
        offset = _SLOTS_OFFSET + index * slot_bytes
        self.header = segment.words(offset, 2)
        self.payload = segment.bytes_at(
            offset + _SLOT_HEADER_BYTES, slot_bytes - _SLOT_HEADER_BYTES
        )


class _SnapshotView:
    def __init__(self, segment: Segment) -> None:
        slot_bytes = (segment.size_bytes - _SLOTS_OFFSET) // 16 * 8
        if slot_bytes <= _SLOT_HEADER_BYTES:
            raise InternalError(f"cannot use {segment.size_bytes} bytes as a snapshot: too small")
        self._version = segment.words(0, 1)
        self._slots = (_Slot(segment, 0, slot_bytes), _Slot(segment, 1, slot_bytes))
        self._fence = Fence()

    @property
    def max_payload_bytes(self) -> int:
        return len(self._slots[0].payload)


class SnapshotWriter(_SnapshotView):
    """The only writer. One thread of one process; the segment is the caller's to close."""

    def publish(self, payload: bytes) -> int:
        """Make `payload` what readers see, and return its version.

        Raises:
            InternalError: the payload is longer than `max_payload_bytes`; readers keep the last.
        """
        if len(payload) > self.max_payload_bytes:
            raise InternalError(
                f"cannot publish a snapshot of {len(payload)} bytes: the segment takes "
                f"{self.max_payload_bytes}"
            )
        version = self._version[0] + 1
        slot = self._slots[version % 2]
        slot.header[0] = 0
        self._fence()
        slot.header[1] = len(payload)
        slot.payload[: len(payload)] = payload
        self._fence()
        slot.header[0] = version
        self._fence()
        self._version[0] = version
        return version


class SnapshotReader(_SnapshotView):
    """One of many readers. One thread of one process; the segment is the caller's to close."""

    def version(self) -> int:
        """Return the version that `read` would give, 0 before the first; costs one load."""
        return self._version[0]

    def read(self) -> tuple[int, bytes] | None:
        """Return version and payload of the latest publication, or None before the first.

        Raises:
            InternalError: the writer published over every attempt to copy.
            ProtocolError: the segment holds no snapshot.
        """
        for _ in range(_READ_ATTEMPTS):
            version = self._version[0]
            if version == 0:
                return None
            payload = self._copy(version)
            if payload is not None:
                return version, payload
        raise InternalError(
            f"cannot read snapshot: it changed during each of {_READ_ATTEMPTS} attempts"
        )

    def _copy(self, version: int) -> bytes | None:
        """Return the payload, or None when the slot holds or came to hold another version."""
        self._fence()
        slot = self._slots[version % 2]
        if slot.header[0] != version:
            return None
        self._fence()
        length = slot.header[1]
        payload = slot.payload[: min(length, len(slot.payload))].tobytes()
        self._fence()
        if slot.header[0] != version:
            return None
        if length > len(slot.payload):
            raise ProtocolError(f"cannot read snapshot: its length is {length} bytes")
        return payload
