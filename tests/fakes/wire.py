"""Reading what servers answer."""

from typing import Any, TypeVar

import httpx
import msgspec

from cortex_core.canonical import Event, Failed, Ping

T = TypeVar("T")
_events = msgspec.json.Decoder(Event)


def decoded(response: httpx.Response, kind: type[T]) -> T:
    """The body of a successful answer."""
    assert response.status_code == 200, response.text
    return msgspec.json.decode(response.content, type=kind)


def events_of(body: bytes) -> list[Event]:
    """The canonical events of a whole ndjson body, without the pings of a busy node."""
    events = [_events.decode(line) for line in body.splitlines()]
    return [event for event in events if not isinstance(event, Ping)]


def refusal(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a request that had to be refused with `status`; in the stream of a busy node."""
    if response.status_code == 200:
        (failed,) = events_of(response.content)
        assert isinstance(failed, Failed)
        return msgspec.to_builtins(failed.error)
    assert response.status_code == status, response.text
    return response.json()["error"]
