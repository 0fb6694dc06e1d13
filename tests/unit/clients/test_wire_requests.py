"""What a connection brought is read as requests."""

import json

from tests.clients.wire_requests import WireRequest, requests_in

BODY = {"model": "m", "text": "ü"}


def request(target: str, body: bytes) -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: h\r\nX-App: cli\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def test_requests_of_one_connection_come_in_order_and_those_without_a_body_do_not() -> None:
    data = json.dumps(BODY, ensure_ascii=False).encode()
    chunked = (
        b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (4, data[:4], len(data) - 4, data[4:])
    )
    get = b"GET /v1/models HTTP/1.1\r\nHost: h\r\n\r\n"
    brought = list(requests_in(request("/a?b=1", data) + get + chunked))
    assert [(one.target, one.body) for one in brought] == [("/a?b=1", BODY), ("/c", BODY)]
    assert brought[0].headers["x-app"] == "cli"


def test_one_that_is_not_whole_is_left_out() -> None:
    whole, broken = request("/a", b"{}"), request("/b", b'{"a": 1}')
    first = WireRequest("/a", {"host": "h", "x-app": "cli", "content-length": "2"}, {})
    assert list(requests_in(whole + broken[:-3])) == [first]
    assert list(requests_in(b"")) == []
