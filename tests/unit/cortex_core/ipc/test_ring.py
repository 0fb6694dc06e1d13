"""Records leave the ring in order and once; a full or broken ring loses none."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cortex_core.errors import InternalError, ProtocolError
from cortex_core.ipc.ring import RingReader, RingWriter, ring_capacity_bytes
from cortex_core.ipc.segment import Segment


@pytest.fixture
def segment() -> Iterator[Segment]:
    segment = Segment.create("ring", 128 + 64)
    yield segment
    segment.close()


def test_records_come_out_in_order_and_once(segment: Segment) -> None:
    writer, reader = RingWriter(segment), RingReader(segment)
    assert writer.try_write(b"one")
    assert writer.try_write(memoryview(b"two"))
    head = writer.head
    assert writer.try_write(b"")
    assert reader.read_until(head) == [b"one", b"two"]
    assert reader.read_until(head) == []
    assert reader.read_until(reader.published_head) == [b""]


def test_full_ring_takes_nothing_and_loses_nothing(segment: Segment) -> None:
    writer, reader = RingWriter(segment), RingReader(segment)
    written = [bytes([index]) * 12 for index in range(4)]
    assert all(writer.try_write(record) for record in written)
    head = writer.head
    assert not writer.try_write(b"x")
    assert writer.head == head
    assert reader.read_until(head) == written
    assert writer.try_write(b"x")


def test_records_written_together_are_published_together_as_far_as_they_fit(
    segment: Segment,
) -> None:
    writer, reader = RingWriter(segment), RingReader(segment)
    records = [bytes([index]) * 12 for index in range(6)]
    heads = []

    def told() -> Iterator[bytes]:
        for record in records:
            heads.append(writer.head)
            yield record

    assert writer.write(told()) == 4
    assert heads == [0] * 5
    assert reader.read_until(writer.head) == records[:4]
    assert writer.write(records[4:]) == 2
    assert writer.write(()) == 0
    assert reader.read_until(writer.head) == records[4:]


def test_record_longer_than_half_the_ring_is_an_error(segment: Segment) -> None:
    writer = RingWriter(segment)
    assert writer.max_record_bytes == 28
    with pytest.raises(InternalError, match="29 bytes: this ring takes 28"):
        writer.try_write(bytes(29))


@pytest.mark.parametrize("shift", range(8))
def test_longest_record_fits_an_empty_ring_at_any_position(segment: Segment, shift: int) -> None:
    writer, reader = RingWriter(segment), RingReader(segment)
    for _ in range(shift):
        assert writer.try_write(b"")
        assert reader.read_until(writer.head) == [b""]
    longest = bytes(range(writer.max_record_bytes))
    assert writer.try_write(longest)
    assert reader.read_until(writer.head) == [longest]


def test_new_ends_on_an_old_ring_go_on_where_it_stands(segment: Segment) -> None:
    RingWriter(segment).try_write(b"first")
    RingWriter(segment).try_write(b"second")
    assert RingReader(segment).read_until(RingWriter(segment).head) == [b"first", b"second"]
    assert RingReader(segment).read_until(RingWriter(segment).head) == []


def test_head_beyond_what_was_written_is_refused(segment: Segment) -> None:
    writer, reader = RingWriter(segment), RingReader(segment)
    writer.try_write(b"one")
    with pytest.raises(ProtocolError, match="cannot read ring up to 16"):
        reader.read_until(16)
    with pytest.raises(ProtocolError, match="cannot read ring up to"):
        reader.read_until(2**40)
    assert reader.read_until(8) == [b"one"]


def test_corrupt_length_is_refused_and_nothing_consumed(segment: Segment) -> None:
    writer, reader = RingWriter(segment), RingReader(segment)
    writer.try_write(b"one")
    segment.buf[128:132] = (60).to_bytes(4, "little")
    with pytest.raises(ProtocolError, match="claims 60 bytes"):
        reader.read_until(8)
    assert reader.tail == 0


def test_segment_without_room_for_data_is_refused() -> None:
    segment = Segment.create("ring", 128)
    with pytest.raises(InternalError, match="too small"):
        RingWriter(segment)
    segment.close()


def test_capacity_leaves_out_the_header() -> None:
    assert ring_capacity_bytes(128 + 70) == 64
    assert ring_capacity_bytes(0) == 0


class RingAgainstDeque(RuleBasedStateMachine):
    """Any interleaving of writes and partial reads gives what a deque gives."""

    @initialize(words=st.integers(min_value=2, max_value=40))
    def begin(self, words: int) -> None:
        self.segment = Segment.create("ring", 128 + 8 * words)
        self.writer = RingWriter(self.segment)
        self.reader = RingReader(self.segment)
        self.model: deque[tuple[int, bytes]] = deque()
        self.serial = 0

    @rule(data=st.data())
    def write(self, data: Any) -> None:
        size = data.draw(st.integers(min_value=0, max_value=self.writer.max_record_bytes))
        self.serial += 1
        record = bytes((self.serial + place) % 256 for place in range(size))
        if self.writer.try_write(record):
            self.model.append((self.writer.head, record))
        else:
            assert self.model, "an empty ring refused a record of legal size"

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def read(self, data: Any) -> None:
        count = data.draw(st.integers(min_value=1, max_value=len(self.model)))
        taken = [self.model.popleft() for _ in range(count)]
        assert self.reader.read_until(taken[-1][0]) == [record for _, record in taken]

    @invariant()
    def ends_agree(self) -> None:
        assert self.reader.published_head == self.writer.head
        assert self.reader.tail <= self.writer.head

    def teardown(self) -> None:
        self.segment.close()


TestRingAgainstDeque = RingAgainstDeque.TestCase
TestRingAgainstDeque.settings = settings(max_examples=60, stateful_step_count=40)
