"""What an actor tells, in order and without loss, over a ring and a socket that can be full."""

from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import ErrorInfo, Overloaded
from cortex_core.ids import RequestId
from neurond.actor.outbox import Outbox
from neurond.protocol import Notice, RequestFailed, TokensReady


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


class Data:
    """A socket that keeps messages, and refuses while `full`."""

    def __init__(self) -> None:
        self.full = False
        self.sent: list[Notice] = []

    def send(self, notice: Notice) -> None:
        if self.full:
            raise Overloaded("full")
        self.sent.append(notice)


def outbox(room: int = 100) -> tuple[Outbox, Ring, Data]:
    ring, data = Ring(room), Data()
    return Outbox(data, ring), ring, data  # fakes of both ends


def failed(name: str) -> RequestFailed:
    return RequestFailed(RequestId(name), ErrorInfo("internal_error", "broken"))


def test_records_of_one_flush_are_announced_once() -> None:
    box, ring, data = outbox()
    for record in (b"a", b"b", b"c"):
        box.record(record)

    assert box.flush()

    assert ring.records == [b"a", b"b", b"c"]
    assert data.sent == [TokensReady(3)]
    assert box.flush()
    assert len(data.sent) == 1


def test_a_notice_comes_behind_the_records_before_it() -> None:
    box, _, data = outbox()
    box.notice(failed("one"))
    box.record(b"a")
    box.notice(failed("two"))
    box.record(b"b")

    box.flush()

    assert data.sent == [failed("one"), TokensReady(1), failed("two"), TokensReady(2)]


def test_a_full_ring_keeps_the_rest_and_announces_what_is_in() -> None:
    box, ring, data = outbox(room=2)
    for record in (b"a", b"b", b"c"):
        box.record(record)

    assert not box.flush()
    assert data.sent == [TokensReady(2)]
    ring.records.clear()

    assert box.flush()
    assert ring.records == [b"c"]
    assert data.sent[-1] == TokensReady(3)


def test_a_full_socket_loses_no_announcement() -> None:
    box, ring, data = outbox()
    data.full = True
    box.record(b"a")
    assert not box.flush()
    assert ring.records == [b"a"]

    data.full = False

    assert box.flush()
    assert data.sent == [TokensReady(1)]


@given(
    st.lists(st.binary(max_size=2) | st.text(max_size=2), max_size=30),
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60),
)
def test_nothing_is_lost_or_reordered(
    items: list[bytes | str], conditions: list[tuple[int, bool]]
) -> None:
    """Whatever room there is when: the reader sees every item, in order."""
    box, ring, data = outbox(room=0)
    seen: list[bytes | str] = []

    def read() -> None:
        for notice in data.sent:
            if isinstance(notice, RequestFailed):
                seen.append(notice.request_id)
            elif isinstance(notice, TokensReady):
                new = notice.head - sum(isinstance(item, bytes) for item in seen)
                seen.extend(ring.records[:new])
                del ring.records[:new]
        data.sent.clear()

    for item in items:
        if isinstance(item, bytes):
            box.record(item)
        else:
            box.notice(failed(item))
    for room, full in [*conditions, (len(items), False), (len(items), False)]:
        ring.room, data.full = room, full
        box.flush()
        read()

    assert seen == items
    assert box.flush()
