"""Several streams of events as one, for a request that asks for several answers at a time."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
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
from cortex_core.owned_events import OwnedEvents

SIGN_EVERY_S: Final = 0.4
"""A stream gives a sign of life each half a second; as many as there are streams say no more."""
_AHEAD: Final = 16
"""Events that may lie ready before the streams are held."""

_Queue = asyncio.Queue[tuple[int, Event | Exception]]


def joined(
    streams: Sequence[AsyncGenerator[Event, None]],
    *,
    choices: int,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[Event, None]:
    """Yield the events of `streams`, which run side by side, in the order of one stream.

    Choice i of stream k becomes choice `k * choices + i`; `seq` is left as it was. The first
    `Started` stands for all; `Completed` comes once, with the usage of all together; the first
    `Failed`, or error that a stream raises, ends them all. Of the signs of life of all streams one
    comes in `SIGN_EVERY_S`. Closing this closes every stream, begun or not.
    """
    return OwnedEvents(_joined(streams, choices, clock), *streams)


async def _joined(
    streams: Sequence[AsyncGenerator[Event, None]], choices: int, clock: Callable[[], float]
) -> AsyncGenerator[Event, None]:
    queue: _Queue = asyncio.Queue(_AHEAD)
    pumps = [
        asyncio.create_task(_pump(place, stream, queue)) for place, stream in enumerate(streams)
    ]
    try:
        usage, running, started = Usage(0, 0), len(streams), False
        signed_at = -math.inf
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
                    if (now := clock()) - signed_at >= SIGN_EVERY_S:
                        signed_at = now
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
