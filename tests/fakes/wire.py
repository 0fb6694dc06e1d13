"""Reading what servers answer."""

from typing import TypeVar

import httpx
import msgspec

from cortex_core.canonical import Event

T = TypeVar("T")
_events = msgspec.json.Decoder(Event)


def decoded(response: httpx.Response, kind: type[T]) -> T:
    """The body of a successful answer."""
    assert response.status_code == 200, response.text
    return msgspec.json.decode(response.content, type=kind)


def events_of(body: bytes) -> list[Event]:
    """The canonical events of a whole ndjson body."""
    return [_events.decode(line) for line in body.splitlines()]
