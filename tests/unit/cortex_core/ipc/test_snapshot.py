"""A reader sees the latest whole publication, also of a writer that was killed in the next."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import InternalError, ProtocolError
from cortex_core.ipc.segment import Segment
from cortex_core.ipc.snapshot import SnapshotReader, SnapshotWriter, snapshot_segment_bytes


@pytest.fixture
def segment() -> Iterator[Segment]:
    segment = Segment.create("snapshot", snapshot_segment_bytes(100))
    yield segment
    segment.close()


def test_nothing_before_the_first_publication(segment: Segment) -> None:
    reader = SnapshotReader(segment)
    assert reader.read() is None
    assert reader.version() == 0


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=6))
def test_reader_sees_the_latest(payloads: list[bytes]) -> None:
    segment = Segment.create("snapshot", snapshot_segment_bytes(100))
    writer, reader = SnapshotWriter(segment), SnapshotReader(segment)
    for version, payload in enumerate(payloads, start=1):
        assert writer.publish(payload) == version
        assert reader.version() == version
        assert reader.read() == (version, payload)
    segment.close()


def test_too_large_a_payload_leaves_the_last_one(segment: Segment) -> None:
    writer, reader = SnapshotWriter(segment), SnapshotReader(segment)
    writer.publish(b"kept")
    with pytest.raises(InternalError, match="cannot publish a snapshot of 105 bytes"):
        writer.publish(bytes(105))
    assert reader.read() == (1, b"kept")


def test_writer_killed_half_way_leaves_the_last_one(segment: Segment) -> None:
    writer, reader = SnapshotWriter(segment), SnapshotReader(segment)
    writer.publish(b"one")
    writer.publish(b"two")
    slot_bytes = (segment.size_bytes - 64) // 2
    seal_of_next = segment.words(64 + slot_bytes, 1)
    seal_of_next[0] = 0
    segment.buf[64 + slot_bytes + 16 : 64 + slot_bytes + 19] = b"???"
    assert reader.read() == (2, b"two")
    assert SnapshotWriter(segment).publish(b"three") == 3
    assert reader.read() == (3, b"three")


def test_slot_that_never_settles_ends_in_an_error(segment: Segment) -> None:
    SnapshotWriter(segment).publish(b"one")
    segment.words(0, 1)[0] = 3
    with pytest.raises(InternalError, match="changed during each of"):
        SnapshotReader(segment).read()


def test_impossible_length_is_refused(segment: Segment) -> None:
    SnapshotWriter(segment).publish(b"one")
    slot_bytes = (segment.size_bytes - 64) // 2
    segment.words(64 + slot_bytes + 8, 1)[0] = 2**40
    with pytest.raises(ProtocolError, match="its length is"):
        SnapshotReader(segment).read()


def test_segment_that_is_too_small_is_refused() -> None:
    segment = Segment.create("snapshot", 96)
    with pytest.raises(InternalError, match="too small"):
        SnapshotWriter(segment)
    segment.close()
