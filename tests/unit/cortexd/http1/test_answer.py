"""The answer parser: any cut of the bytes, every kind of body, and what it refuses."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.http1.answer import Answer
from cortexd.http1.errors import BadAnswer
from cortexd.http1.message import MAX_HEAD_BYTES

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
)
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world"


def feed_all(*pieces: bytes) -> None:
    answer = Answer()
    for piece in pieces:
        answer.feed(piece)


@given(
    raw=st.sampled_from([CHUNKED, SIZED]), cuts=st.lists(st.integers(0, len(CHUNKED)), max_size=6)
)
def test_body_is_the_same_however_the_bytes_are_cut(raw: bytes, cuts: list[int]) -> None:
    answer = Answer()
    bounds = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    body = b""
    for start, end in itertools.pairwise(bounds):
        if start < end:
            answer.feed(raw[start:end])
            body += answer.take()
    assert body == b"hello world"
    assert answer.complete
    assert answer.keep_alive
    assert answer.head is not None
    assert answer.head.status == 200


def test_provisional_answers_are_passed_over() -> None:
    answer = Answer()
    answer.feed(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert answer.head is None
    assert not answer.complete
    answer.feed(SIZED)
    assert answer.head is not None
    assert answer.head.status == 200
    assert answer.complete


def test_body_of_unknown_length_ends_with_the_connection() -> None:
    answer = Answer()
    answer.feed(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello")
    assert not answer.complete
    answer.peer_closed()
    assert answer.complete
    assert not answer.keep_alive
    assert answer.take() == b"hello"


def test_sized_body_cut_short_is_not_complete() -> None:
    answer = Answer()
    answer.feed(SIZED[:-3])
    answer.peer_closed()
    assert not answer.complete


def test_connection_close_is_not_kept() -> None:
    answer = Answer()
    answer.feed(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    assert answer.complete
    assert not answer.keep_alive


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: minus\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: aaaaaaaaaa\r\n" % i for i in range(6000)),
        SIZED + b"HTTP/1.1 200 OK\r\n\r\n",
    ],
    ids=["no http", "bad length", "endless header", "too many headers", "two answers"],
)
def test_broken_answers_are_refused(raw: bytes) -> None:
    with pytest.raises(BadAnswer):
        feed_all(raw, b"more")
