"""A request's tokens between the ring and its reader."""

import asyncio

import pytest

from cortex_core.errors import DeviceFailed, Timeout
from neurond.stream_items import Admitted, ChoiceFinished, StreamItem, Token
from neurond.supervisor.streams import (
    HIGH_WATER_TOKENS,
    LOW_WATER_TOKENS,
    MOST_TAKEN_TOKENS,
    STALLED_S,
    TokenStream,
)


class Control:
    """Notes what a stream asks of its actor."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int | None]] = []

    def pause(self, choice: int) -> None:
        self.calls.append(("pause", choice))

    def resume(self, choice: int) -> None:
        self.calls.append(("resume", choice))

    def finish(self, choice: int) -> None:
        self.calls.append(("finish", choice))

    def cancel(self) -> None:
        self.calls.append(("cancel", None))


def stream_of(n: int = 1) -> tuple[TokenStream, Control]:
    control = Control()
    return TokenStream(n, control), control


async def test_items_come_in_order_and_end_with_the_last_choice() -> None:
    stream, control = stream_of(2)
    items = [
        Admitted(3),
        Token(0, 1),
        ChoiceFinished(0, "stop"),
        Token(1, 2),
        ChoiceFinished(1, "stop"),
    ]
    for item in items:
        stream.deliver(item)

    assert [item async for item in stream] == items
    assert control.calls == []


async def test_a_reader_that_waits_is_woken() -> None:
    stream, _ = stream_of()
    reader = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)

    stream.deliver(Token(0, 7))

    assert await reader == Token(0, 7)


async def test_a_reader_that_is_cancelled_loses_nothing() -> None:
    stream, control = stream_of()
    reader = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader

    stream.deliver(Token(0, 7))

    assert await anext(stream) == Token(0, 7)
    assert control.calls == []


async def test_a_failure_comes_behind_what_was_delivered() -> None:
    stream, _ = stream_of()
    stream.deliver(Token(0, 7))

    stream.fail(DeviceFailed("gone"))

    assert await anext(stream) == Token(0, 7)
    for _ in range(2):
        with pytest.raises(DeviceFailed, match="gone"):
            await anext(stream)


async def test_a_failure_wakes_the_reader() -> None:
    stream, _ = stream_of()
    reader = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)

    stream.fail(DeviceFailed("gone"))

    with pytest.raises(DeviceFailed):
        await reader


async def test_a_failure_after_the_end_is_none() -> None:
    stream, _ = stream_of()
    stream.deliver(ChoiceFinished(0, "stop"))

    stream.fail(DeviceFailed("gone"))

    assert [item async for item in stream] == [ChoiceFinished(0, "stop")]


async def test_high_water_pauses_once_and_low_water_resumes() -> None:
    stream, control = stream_of(2)
    for number in range(HIGH_WATER_TOKENS + 10):
        stream.deliver(Token(0, number))
    assert control.calls == [("pause", 0), ("pause", 1)]

    while stream.buffered_tokens >= LOW_WATER_TOKENS:
        assert stream.paused
        await anext(stream)

    assert control.calls[2:] == [("resume", 0), ("resume", 1)]


async def test_a_choice_that_has_ended_is_neither_paused_nor_resumed() -> None:
    stream, control = stream_of(2)
    stream.deliver(ChoiceFinished(1, "stop"))
    for number in range(HIGH_WATER_TOKENS + 1):
        stream.deliver(Token(0, number))

    assert control.calls == [("pause", 0)]


async def test_finish_drops_the_rest_of_a_choice() -> None:
    stream, control = stream_of(2)
    stream.deliver(Token(0, 1))
    stream.deliver(Token(1, 2))

    stream.finish_choice(0)
    stream.finish_choice(0)
    stream.deliver(Token(0, 3))
    stream.deliver(ChoiceFinished(0, "stop"))
    stream.deliver(ChoiceFinished(1, "length"))

    assert [item async for item in stream] == [Token(1, 2), ChoiceFinished(1, "length")]
    assert control.calls == [("finish", 0)]


async def test_finish_drops_what_a_choice_that_ended_left_behind() -> None:
    stream, control = stream_of()
    stream.deliver(Token(0, 1))
    stream.deliver(ChoiceFinished(0, "length"))

    stream.finish_choice(0)

    assert [item async for item in stream] == []
    assert control.calls == []


async def test_cancel_ends_the_iteration_and_tells_the_actor_once() -> None:
    stream, control = stream_of()
    stream.deliver(Token(0, 1))
    reader_of_nothing, _ = stream_of()

    stream.cancel()
    await stream.aclose()
    reader_of_nothing.cancel()

    assert [item async for item in stream] == []
    assert [item async for item in reader_of_nothing] == []
    assert control.calls == [("cancel", None)]


async def test_cancel_of_a_finished_stream_tells_nobody() -> None:
    stream, control = stream_of()
    stream.deliver(ChoiceFinished(0, "stop"))

    stream.cancel()

    assert control.calls == []


async def test_take_returns_everything_that_is_there() -> None:
    stream, control = stream_of(2)
    items = [Admitted(3), Token(0, 1), Token(1, 2), ChoiceFinished(1, "stop")]
    for item in items:
        stream.deliver(item)

    assert await stream.take(60.0) == items
    assert not stream.ended
    stream.deliver(ChoiceFinished(0, "stop"))
    assert await stream.take(60.0) == [ChoiceFinished(0, "stop")]
    assert stream.ended
    assert await stream.take(60.0) == []
    assert control.calls == []


async def test_take_waits_for_the_next_item_and_no_longer_than_told() -> None:
    stream, _ = stream_of()
    assert await stream.take(0.001) == []
    taking = asyncio.create_task(stream.take(60.0))
    await asyncio.sleep(0)

    stream.deliver(Token(0, 7))

    assert await taking == [Token(0, 7)]


async def test_take_gives_what_came_before_a_failure_first() -> None:
    stream, _ = stream_of()
    stream.deliver(Token(0, 7))
    stream.fail(DeviceFailed("gone"))

    assert await stream.take(60.0) == [Token(0, 7)]
    assert not stream.ended
    with pytest.raises(DeviceFailed, match="gone"):
        await stream.take(60.0)


async def test_take_resumes_a_stream_once_what_it_gave_before_is_dealt_with() -> None:
    stream, control = filled()
    while stream.buffered_tokens >= LOW_WATER_TOKENS:
        await stream.take(60.0)
        assert control.calls == [("pause", 0)]

    await stream.take(60.0)

    assert control.calls == [("pause", 0), ("resume", 0)]


async def test_a_reader_slower_than_the_engine_is_not_handed_more_each_time() -> None:
    stream, _ = stream_of()
    taken: list[StreamItem] = []
    made = 0
    for calls in range(1, 100):
        while not stream.paused:
            stream.deliver(Token(0, made))
            made += 1

        items = await stream.take(60.0)

        taken += items
        assert 0 < len(items) <= MOST_TAKEN_TOKENS
        assert made <= calls * MOST_TAKEN_TOKENS + HIGH_WATER_TOKENS + 1
    assert taken == [Token(0, number) for number in range(len(taken))]


async def test_finishing_the_choice_that_filled_the_buffer_resumes_the_others() -> None:
    stream, control = stream_of(2)
    for number in range(HIGH_WATER_TOKENS + 1):
        stream.deliver(Token(0, number))

    stream.finish_choice(0)

    assert control.calls[2:] == [("finish", 0), ("resume", 1)]


def filled(n: int = 1) -> tuple[TokenStream, Control]:
    stream, control = stream_of(n)
    for number in range(HIGH_WATER_TOKENS + 1):
        stream.deliver(Token(0, number))
    return stream, control


async def test_a_reader_that_has_stopped_loses_its_place_and_is_told() -> None:
    stream, control = filled()
    stream.tick(1000.0)
    stream.tick(1000.0 + STALLED_S - 0.1)
    assert control.calls == [("pause", 0)]

    stream.tick(1000.0 + STALLED_S)
    stream.tick(1000.0 + 2 * STALLED_S)

    assert control.calls == [("pause", 0), ("cancel", None)]
    assert len([await anext(stream) for _ in range(HIGH_WATER_TOKENS + 1)]) == HIGH_WATER_TOKENS + 1
    with pytest.raises(Timeout, match="nothing of the answer was read for 300 s"):
        await stream.take(60.0)


async def test_a_reader_that_is_slow_keeps_its_place() -> None:
    stream, control = filled()
    for minutes in range(60):
        stream.tick(60.0 * minutes)
        if minutes % 4 == 3:
            await anext(stream)

    assert control.calls == [("pause", 0)]


async def test_a_pause_that_ended_does_not_count() -> None:
    stream, control = filled()
    stream.tick(0.0)
    while stream.paused:
        await stream.take(60.0)
    stream.tick(STALLED_S)
    for number in range(HIGH_WATER_TOKENS + 1):
        stream.deliver(Token(0, number))
    stream.tick(STALLED_S + 1)

    assert control.calls == [("pause", 0), ("resume", 0), ("pause", 0)]


async def test_a_finished_answer_waits_for_its_reader() -> None:
    stream, control = filled()
    stream.deliver(ChoiceFinished(0, "length"))
    stream.tick(0.0)
    stream.tick(STALLED_S)

    assert control.calls == [("pause", 0)]
    assert len([item async for item in stream]) == HIGH_WATER_TOKENS + 2
    assert stream.ended
