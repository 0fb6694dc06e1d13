"""A request's tokens between the ring and its reader."""

import asyncio

import pytest

from cortex_core.errors import DeviceFailed, Timeout
from cortex_core.stall_watch import NODE_STALLED_S
from neurond.stream_items import Admitted, ChoiceFinished, StreamItem, Token
from neurond.supervisor.streams import (
    HIGH_WATER_TOKENS,
    LOW_WATER_TOKENS,
    MOST_TAKEN_TOKENS,
    TokenStream,
)
from tests.fakes.actor_node import collect, collect_into
from tests.fakes.waiting import WAIT_S


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


async def test_what_is_there_is_taken_in_order_until_the_last_choice_has_ended() -> None:
    stream, control = stream_of(2)
    items = [Admitted(3), Token(0, 1), Token(1, 2), ChoiceFinished(1, "stop")]
    for item in items:
        stream.deliver(item)

    assert await stream.take(WAIT_S) == items
    assert not stream.ended
    stream.deliver(ChoiceFinished(0, "stop"))
    assert await stream.take(WAIT_S) == [ChoiceFinished(0, "stop")]
    assert stream.ended
    assert await stream.take(WAIT_S) == []
    assert control.calls == []


async def test_a_reader_waits_for_the_next_item_and_no_longer_than_told() -> None:
    stream, _ = stream_of()
    assert await stream.take(0.001) == []
    reader = asyncio.create_task(stream.take(WAIT_S))
    await asyncio.sleep(0)

    stream.deliver(Token(0, 7))

    assert await reader == [Token(0, 7)]


async def test_a_reader_that_is_cancelled_loses_nothing() -> None:
    stream, control = stream_of()
    reader = asyncio.create_task(stream.take(WAIT_S))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader

    stream.deliver(Token(0, 7))

    assert await stream.take(WAIT_S) == [Token(0, 7)]
    assert control.calls == []


async def test_a_failure_comes_behind_what_was_delivered() -> None:
    stream, _ = stream_of()
    stream.deliver(Token(0, 7))

    stream.fail(DeviceFailed("gone"))

    assert await stream.take(WAIT_S) == [Token(0, 7)]
    for _ in range(2):
        assert not stream.ended
        with pytest.raises(DeviceFailed, match="gone"):
            await stream.take(WAIT_S)


async def test_a_failure_wakes_the_reader() -> None:
    stream, _ = stream_of()
    reader = asyncio.create_task(stream.take(WAIT_S))
    await asyncio.sleep(0)

    stream.fail(DeviceFailed("gone"))

    with pytest.raises(DeviceFailed):
        await reader


async def test_a_failure_after_the_end_is_none() -> None:
    stream, _ = stream_of()
    stream.deliver(ChoiceFinished(0, "stop"))

    stream.fail(DeviceFailed("gone"))

    assert await collect(stream) == [ChoiceFinished(0, "stop")]


async def test_high_water_pauses_once_and_low_water_resumes_at_the_next_take() -> None:
    stream, control = stream_of(2)
    for number in range(HIGH_WATER_TOKENS + 10):
        stream.deliver(Token(0, number))
    paused = [("pause", 0), ("pause", 1)]

    while stream.buffered_tokens >= LOW_WATER_TOKENS:
        await stream.take(WAIT_S)
        assert stream.paused
        assert control.calls == paused
    await stream.take(WAIT_S)

    assert not stream.paused
    assert control.calls == [*paused, ("resume", 0), ("resume", 1)]


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

    assert await collect(stream) == [Token(1, 2), ChoiceFinished(1, "length")]
    assert control.calls == [("finish", 0)]


async def test_finish_drops_what_a_choice_that_ended_left_behind() -> None:
    stream, control = stream_of()
    stream.deliver(Token(0, 1))
    stream.deliver(ChoiceFinished(0, "length"))

    stream.finish_choice(0)

    assert await collect(stream) == []
    assert control.calls == []


async def test_cancel_ends_the_stream_and_tells_the_actor_once() -> None:
    stream, control = stream_of()
    stream.deliver(Token(0, 1))
    reader_of_nothing, _ = stream_of()

    stream.cancel()
    stream.cancel()
    reader_of_nothing.cancel()

    assert stream.ended
    assert await stream.take(WAIT_S) == []
    assert await reader_of_nothing.take(WAIT_S) == []
    assert control.calls == [("cancel", None)]


async def test_cancel_wakes_the_reader() -> None:
    stream, _ = stream_of()
    reader = asyncio.create_task(stream.take(WAIT_S))
    await asyncio.sleep(0)

    stream.cancel()

    assert await reader == []
    assert stream.ended


async def test_cancel_of_a_finished_stream_tells_nobody() -> None:
    stream, control = stream_of()
    stream.deliver(ChoiceFinished(0, "stop"))

    stream.cancel()

    assert control.calls == []


async def test_a_reader_slower_than_the_engine_is_not_handed_more_each_time() -> None:
    stream, _ = stream_of()
    taken: list[StreamItem] = []
    made = 0
    for calls in range(1, 100):
        while not stream.paused:
            stream.deliver(Token(0, made))
            made += 1

        items = await stream.take(WAIT_S)

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
    stream.tick(1000.0 + NODE_STALLED_S - 0.1)
    assert control.calls == [("pause", 0)]

    stream.tick(1000.0 + NODE_STALLED_S)
    stream.tick(1000.0 + 2 * NODE_STALLED_S)

    assert control.calls == [("pause", 0), ("cancel", None)]
    items: list[StreamItem] = []
    with pytest.raises(Timeout, match="nothing of the answer was read for 600 s"):
        await collect_into(items, stream)
    assert len(items) == HIGH_WATER_TOKENS + 1


async def test_a_reader_that_is_slow_keeps_its_place() -> None:
    stream, control = filled()
    for minutes in range(HIGH_WATER_TOKENS // MOST_TAKEN_TOKENS * 4):
        stream.tick(60.0 * minutes)
        if minutes % 4 == 3:
            await stream.take(WAIT_S)

    assert control.calls == [("pause", 0)]


async def test_a_pause_that_ended_does_not_count() -> None:
    stream, control = filled()
    stream.tick(0.0)
    while stream.paused:
        await stream.take(WAIT_S)
    stream.tick(NODE_STALLED_S)
    for number in range(HIGH_WATER_TOKENS + 1):
        stream.deliver(Token(0, number))
    stream.tick(NODE_STALLED_S + 1)

    assert control.calls == [("pause", 0), ("resume", 0), ("pause", 0)]


async def test_a_finished_answer_waits_for_its_reader() -> None:
    stream, control = filled()
    stream.deliver(ChoiceFinished(0, "length"))
    stream.tick(0.0)
    stream.tick(NODE_STALLED_S)

    assert control.calls == [("pause", 0)]
    assert len(await collect(stream)) == HIGH_WATER_TOKENS + 2
    assert stream.ended
