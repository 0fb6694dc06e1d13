"""Several streams of events as one, for a request that asks for several answers at a time."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import msgspec

from cortex_core.canonical import (
    TERMINAL_EVENTS,
    Completed,
    Event,
    Failed,
    Loading,
    Ping,
    Started,
    Usage,
)
from cortex_core.errors import CortexError, ProtocolError

_AHEAD: Final = 16
"""Events that may lie ready before the streams are held."""

_Queue = asyncio.Queue[tuple[int, Event | Exception]]


async def joined(
    streams: Sequence[AsyncGenerator[Event, None]], *, choices: int
) -> AsyncGenerator[Event, None]:
    """Yield the events of `streams`, which run side by side, in the order of one stream.

    Choice i of stream k becomes choice `k * choices + i`; `seq` is left as it was. The first
    `Started` stands for all; `Completed` comes once, with the usage of all together; the first
    `Failed`, or error that a stream raises, ends them all. Closing this closes every stream.
    """
    queue: _Queue = asyncio.Queue(_AHEAD)
    pumps = [
        asyncio.create_task(_pump(place, stream, queue)) for place, stream in enumerate(streams)
    ]
    try:
        usage, running, started = Usage(0, 0), len(streams), False
        while running:
            place, event = await queue.get()
            match event:
                case Completed(usage=one):
                    usage, running = _sum(usage, one), running - 1
                case Started():
                    if not started:
                        started = True
                        yield event
                case Ping() | Loading():
                    yield event
                case Failed():
                    yield event
                    return
                case Exception():
                    raise event
                case _:
                    yield msgspec.structs.replace(event, index=place * choices + event.index)
        await asyncio.gather(*pumps)
        yield Completed(usage)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(place: int, stream: AsyncGenerator[Event, None], queue: _Queue) -> None:
    ended = False
    try:
        async with aclosing(stream) as events:
            async for event in events:
                ended = isinstance(event, TERMINAL_EVENTS)
                await queue.put((place, event))
        if not ended:
            raise ProtocolError("cannot answer: a stream ended before it was whole")
    except CortexError as error:
        await queue.put((place, Failed(error.info())))
    except Exception as error:  # noqa: BLE001 - it is raised where the events are taken
        await queue.put((place, error))


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        one.cached_tokens + other.cached_tokens,
        one.reasoning_tokens + other.reasoning_tokens,
    )
