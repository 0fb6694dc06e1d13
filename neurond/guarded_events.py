"""Streams of events whose begin may still be an error of the caller's, and whose rest may not."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

from cortex_core.canonical import (
    Event,
    Failed,
    Ping,
)
from cortex_core.canonical_embedding import EmbedEvent
from cortex_core.errors import CortexError, InternalError
from cortex_core.ids import RequestId
from cortex_core.logs import kv
from cortex_core.owned_events import OwnedEvents

E = TypeVar("E", Event, EmbedEvent)

_log = logging.getLogger(__name__)


async def begun(
    source: AsyncGenerator[list[E], None], request_id: RequestId, *, work: str
) -> AsyncGenerator[list[E], None]:
    """Return `source` with its first events known; whatever it raises later is its last event.

    `work` is what failed, for the log. Closing what is returned closes `source`, begun or not.

    Raises:
        CortexError: `source` raised it before its first events.
    """
    try:
        first = await anext(source)
    except BaseException:
        await source.aclose()
        raise
    return OwnedEvents(_guarded(first, source, request_id, work), source)


def one_by_one(batches: AsyncGenerator[list[E], None]) -> AsyncGenerator[E, None]:
    """Return the events of `batches` as a stream of single ones; closing it closes `batches`."""
    return OwnedEvents(_one_by_one(batches), batches)


async def pings_until(task: asyncio.Task[Any], interval_s: float) -> AsyncGenerator[Ping, None]:
    """Yield a `Ping` for every `interval_s` that `task` takes; end once it is done, however."""
    while not (await asyncio.wait({task}, timeout=interval_s))[0]:
        yield Ping()


async def _one_by_one(batches: AsyncGenerator[list[E], None]) -> AsyncGenerator[E, None]:
    async for events in batches:
        for event in events:
            yield event


async def _guarded(
    first: list[E], source: AsyncGenerator[list[E], None], request_id: RequestId, work: str
) -> AsyncGenerator[list[E], None]:
    """Yield `first` and then `source`, whose error becomes its terminal event."""
    try:
        yield first
        async for events in source:
            yield events
    except CortexError as ex:
        yield [Failed(ex.info())]
    except Exception as ex:  # noqa: BLE001 - a defect must end this stream only, and in its form
        _log.exception("%s failed", work, extra=kv(request_id=request_id))
        yield [Failed(InternalError(f"cannot go on: {type(ex).__name__}: {ex}").info())]
