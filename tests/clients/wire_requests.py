"""What a connection brought, as requests."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import h11


class WireRequest(NamedTuple):
    """One request with a JSON object in it. Names of headers are in lower case."""

    target: str
    headers: dict[str, str]
    body: dict[str, Any]


def requests_in(data: bytes) -> Iterator[WireRequest]:
    """Yield the requests with a body, in their order, as far as they are whole."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    connection.receive_data(b"")
    head: h11.Request | None = None
    body = b""
    with contextlib.suppress(h11.RemoteProtocolError):  # it went in the middle of one
        while not isinstance(event := connection.next_event(), h11.ConnectionClosed):
            if isinstance(event, h11.Request):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                if body:
                    headers = {name.decode(): value.decode() for name, value in head.headers}
                    yield WireRequest(head.target.decode(), headers, json.loads(body))
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return
                connection.start_next_cycle()
