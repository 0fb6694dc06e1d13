"""What an actor tells, in order and without loss, over a ring that can be full."""

from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import ErrorInfo
from cortex_core.ids import ModelId, RequestId
from neurond.actor.outbox import MAX_MESSAGE, Outbox
from neurond.protocol import ModelLoadFailed, RequestFailed
from neurond.ring_records import decode_record, encode_finish


class Ring:
    """Has room for so many records at a time."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.head = 0
        self.records: list[bytes] = []

    def try_write(self, record: bytes) -> bool:
        if len(self.records) >= self.room:
            return False
        self.records.append(record)
        self.head += 1
        return True


class Bell:
    def __init__(self) -> None:
        self.rings = 0

    def ring(self) -> None:
        self.rings += 1


def outbox(room: int = 100) -> tuple[Outbox, Ring, Bell]:
    ring, bell = Ring(room), Bell()
    return Outbox(ring, bell), ring, bell  # fakes of both


def failed(name: str) -> RequestFailed:
    return RequestFailed(RequestId(name), ErrorInfo("internal_error", "broken"))


def test_records_of_one_flush_are_announced_once() -> None:
    box, ring, bell = outbox()
    for record in (b"a", b"b", b"c"):
        box.record(record)

    assert box.flush()

    assert ring.records == [b"a", b"b", b"c"]
    assert bell.rings == 1
    assert box.flush()
    assert bell.rings == 1


def test_a_notice_comes_behind_the_records_before_it() -> None:
    box, ring, bell = outbox()
    record = encode_finish(1, "stop")
    box.notice(failed("one"))
    box.record(record)
    box.notice(failed("two"))

    box.flush()

    told = [decode_record(data) for data in ring.records]
    assert told == [failed("one"), decode_record(record), failed("two")]
    assert bell.rings == 1


def test_an_error_is_cut_to_what_a_record_holds() -> None:
    box, ring, _ = outbox()
    error = ErrorInfo("internal_error", "cannot: " + "\N{SNOWMAN}" * 1_000_000)
    for notice in (RequestFailed(RequestId("r"), error), ModelLoadFailed(ModelId("m"), error)):
        box.notice(notice)

    box.flush()

    assert len(ring.records) == 2
    for record in ring.records:
        assert len(record) < 1 << 16
        told = decode_record(record)
        assert isinstance(told, RequestFailed | ModelLoadFailed)
        assert told.error.message == error.message[:MAX_MESSAGE]


def test_a_full_ring_keeps_the_rest_and_announces_what_is_in() -> None:
    box, ring, bell = outbox(room=2)
    for record in (b"a", b"b", b"c"):
        box.record(record)

    assert not box.flush()
    assert bell.rings == 1
    assert not box.flush()
    assert bell.rings == 1, "nothing is new"
    ring.records.clear()

    assert box.flush()
    assert ring.records == [b"c"]
    assert bell.rings == 2


@given(
    st.lists(st.binary(max_size=2) | st.text(max_size=2), max_size=30),
    st.lists(st.integers(0, 3), max_size=60),
)
def test_nothing_is_lost_or_reordered(items: list[bytes | str], rooms: list[int]) -> None:
    """Whatever room there is when: who looks when the bell rings sees every item, in order."""
    box, ring, bell = outbox(room=0)
    seen: list[bytes] = []
    for item in items:
        if isinstance(item, bytes):
            box.record(item)
        else:
            box.notice(failed(item))
    for room in [*rooms, len(items)]:
        ring.room, bell.rings = room, 0
        box.flush()
        if bell.rings:
            seen += ring.records
            ring.records.clear()

    for item, data in zip(items, seen, strict=True):
        if isinstance(item, bytes):
            assert data == item
        else:
            assert decode_record(data) == failed(item)
    assert box.flush()
