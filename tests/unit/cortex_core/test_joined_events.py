"""Several streams of events as one."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_core.canonical import (
    Completed,
    Event,
    Failed,
    Finished,
    Ping,
    Started,
    TextDelta,
    Usage,
)
from cortex_core.errors import NodeUnavailable
from cortex_core.ids import ModelId, RequestId
from cortex_core.joined_events import joined

STARTED = Started(RequestId("r"), ModelId("a:b"), 3)


class Source:
    """A stream that says what it is told, lets others run in between, and notes its close."""

    def __init__(self, *events: Event | BaseException | asyncio.Event) -> None:
        self.closed = False
        self.begun = asyncio.Event()
        self._events = events

    async def stream(self) -> AsyncGenerator[Event, None]:
        self.begun.set()
        try:
            for event in self._events:
                await asyncio.sleep(0)
                if isinstance(event, BaseException):
                    raise event
                if isinstance(event, asyncio.Event):
                    await event.wait()
                else:
                    yield event
        finally:
            self.closed = True


def whole(text: str, choices: int, tokens: int = 2) -> list[Event]:
    deltas = [TextDelta(index, piece) for piece in text for index in range(choices)]
    finished = [Finished(index, "stop") for index in range(choices)]
    usage = Usage(tokens, 2 * tokens, cached_tokens=1, reasoning_tokens=1)
    return [Ping(), STARTED, *deltas, *finished, Completed(usage)]


async def run(sources: Sequence[Source], choices: int = 1) -> list[Event]:
    async with aclosing(joined([each.stream() for each in sources], choices=choices)) as events:
        return [event async for event in events]


@settings(max_examples=50)
@given(texts=st.lists(st.text(max_size=30), min_size=1, max_size=5), choices=st.integers(1, 3))
def test_every_choice_says_what_its_stream_said(texts: list[str], choices: int) -> None:
    sources = [Source(*whole(text, choices, place)) for place, text in enumerate(texts)]
    events = asyncio.run(run(sources, choices))
    assert sum(isinstance(event, Started) for event in events) == 1
    first = next(place for place, event in enumerate(events) if isinstance(event, Started))
    assert all(isinstance(event, Ping) for event in events[:first])
    for index in range(len(texts) * choices):
        mine = [e for e in events if isinstance(e, TextDelta | Finished) and e.index == index]
        assert isinstance(mine[-1], Finished)
        said = "".join(event.text for event in mine if isinstance(event, TextDelta))
        assert said == texts[index // choices]
    tokens = sum(range(len(texts)))
    assert events[-1] == Completed(Usage(tokens, 2 * tokens, len(texts), len(texts)))
    assert all(source.closed for source in sources)


async def test_streams_run_side_by_side() -> None:
    second = Source(*whole("b", 1))
    first = Source(second.begun, *whole("a", 1))
    assert isinstance((await run([first, second]))[-1], Completed)


async def test_many_streams_give_no_more_signs_of_life_than_one() -> None:
    waiting: list[Event] = [Ping()] * 5
    sources = [Source(*waiting, *whole("a", 1)) for _ in range(64)]
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.5 / 64
        return now

    streams = [each.stream() for each in sources]
    async with aclosing(joined(streams, choices=1, clock=clock)) as events:
        kinds = [type(event) async for event in events]
    assert 5 <= kinds.count(Ping) <= 8  # of 64 * 6 in 3 s, one each 0.4 s


@pytest.mark.parametrize("end", ["failed", "raised"])
async def test_the_first_failure_ends_all(end: str) -> None:
    error = NodeUnavailable("cannot reach the node: gone", retry_after_s=2.0)
    waits = Source(STARTED, asyncio.Event())
    fails = Source(STARTED, Failed(error.info()) if end == "failed" else error)
    events = await run([waits, fails])
    assert events[-1] == Failed(error.info())
    assert waits.closed
    assert fails.closed


async def test_a_defect_is_raised_where_events_are_taken() -> None:
    waits = Source(asyncio.Event())
    with pytest.raises(ZeroDivisionError):
        await run([waits, Source(ZeroDivisionError())])
    assert waits.closed


async def test_a_stream_that_just_ends_is_a_failure() -> None:
    events = await run([Source(STARTED), Source(*whole("a", 1))])
    assert isinstance(events[-1], Failed)
    assert events[-1].error.code == "protocol_error"


async def test_closing_closes_every_stream() -> None:
    sources = [Source(STARTED, TextDelta(0, "a"), asyncio.Event()) for _ in range(3)]
    async with aclosing(joined([each.stream() for each in sources], choices=1)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    assert all(source.closed for source in sources)


async def test_closing_before_the_first_event_closes_every_stream() -> None:
    sources = [Source(STARTED, asyncio.Event()) for _ in range(3)]
    streams = [each.stream() for each in sources]
    for stream in streams:
        await anext(stream)
    await joined(streams, choices=1).aclose()
    assert all(source.closed for source in sources)


async def test_a_reader_that_stops_holds_the_streams() -> None:
    source = Source(STARTED, *(TextDelta(0, str(number)) for number in range(1000)))
    stream = source.stream()
    taken = 0

    async def counted() -> AsyncGenerator[Event, None]:
        nonlocal taken
        async with aclosing(stream) as events:
            async for event in events:
                taken += 1
                yield event

    async with aclosing(joined([counted()], choices=1)) as events:
        await anext(events)
        for _ in range(200):
            await asyncio.sleep(0)
        assert taken < 50
