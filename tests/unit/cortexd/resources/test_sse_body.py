"""The streamed body: what decides the status, what is flushed first, what is closed."""

from collections.abc import AsyncGenerator, Iterable

import pytest

from cortex_core.canonical import Completed, Event, Failed, Loading, Ping, Started, TextDelta, Usage
from cortex_core.errors import CortexError, ErrorInfo, ProtocolError
from cortex_core.ids import ModelId, RequestId
from cortexd.resources.sse_body import COMMIT_AFTER_S, SseBody, first_of

STARTED = Started(RequestId("r"), ModelId("fake:m"), 1)


class Events:
    """Yields events; notes whether it was closed."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.closed = False
        self.stream = self._stream(events)

    async def _stream(self, events: Iterable[Event]) -> AsyncGenerator[Event, None]:
        try:
            for event in events:
                yield event
        finally:
            self.closed = True


class Names:
    """An encoder that writes each event's type, and nothing for pings."""

    def __init__(self, refused: type | None = None, error: Exception | None = None) -> None:
        self._refused = refused
        self._error = error or ProtocolError("cannot encode: out of order")

    def event(self, event: Event) -> bytes:
        if self._refused is not None and isinstance(event, self._refused):
            raise self._error
        return b"" if isinstance(event, Ping) else type(event).__name__.encode()

    def feed(self, event: Event) -> None:
        raise AssertionError

    def body(self) -> bytes:
        raise AssertionError


def ticking(step_s: float) -> "Iterable[float]":
    now = 0.0
    while True:
        yield now
        now += step_s


def still() -> float:
    return 0.0


async def first(events: list[Event], step_s: float) -> Event:
    clock = iter(ticking(step_s))
    return await first_of(Events(events).stream, lambda: next(clock))


async def test_early_signs_of_life_do_not_decide() -> None:
    assert await first([Loading("queued"), Ping(), STARTED], 0.01) == STARTED
    failed = Failed(ErrorInfo("queue_full", "cannot queue: full"))
    assert await first([Loading("queued"), failed], 0.01) == failed


async def test_late_sign_of_life_means_200() -> None:
    assert await first([Ping(), Loading("loading"), STARTED], COMMIT_AFTER_S) == Ping()


async def test_no_events_at_all_is_an_error() -> None:
    with pytest.raises(CortexError):
        await first([], 0.01)


async def test_first_bytes_come_even_for_a_silent_event() -> None:
    events = Events([TextDelta(0, "a"), Ping(), Completed(Usage(1, 1))])
    chunks = [chunk async for chunk in SseBody(Ping(), events.stream, Names(), still)]
    assert chunks == [b": ok\n\n", b"TextDelta", b"Completed"]


@pytest.mark.parametrize("error", [None, ZeroDivisionError()])
async def test_encoder_that_refuses_ends_the_stream_with_an_error(error: Exception | None) -> None:
    events = Events([TextDelta(0, "a"), Completed(Usage(1, 1))])
    names = Names(TextDelta, error)
    chunks = [chunk async for chunk in SseBody(STARTED, events.stream, names, still)]
    assert chunks == [b"Started", b"Failed"]


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_close_stops_the_events_whenever_it_comes(taken: int) -> None:
    events = Events([TextDelta(0, "a")] * 5)
    await anext(events.stream)
    body = SseBody(STARTED, events.stream, Names(), still)
    chunks = aiter(body)
    for _ in range(taken):
        await anext(chunks)
    await body.close()
    assert events.closed
    await body.close()
