"""A client that stops reading is given up; one that reads, however late, is not."""

import asyncio

import pytest

from cortexd.resources.stall_watch import StallWatch

GENEROUS_S = 30.0
LOOKS = 50


async def test_what_is_never_taken_cancels_the_task() -> None:
    async def stalled() -> None:
        with StallWatch(stalled_s=0.0) as watch:
            watch.handed()
            await asyncio.Event().wait()

    task = asyncio.create_task(stalled())
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, GENEROUS_S)


async def test_a_long_wait_for_something_to_say_is_no_stall() -> None:
    async def slow_model() -> str:
        with StallWatch(stalled_s=0.0) as watch:
            watch.handed()
            watch.taken()
            await looks()
        await looks()
        return "alive"

    assert await asyncio.create_task(slow_model()) == "alive"


async def looks() -> None:
    """Let the watch, which looks in every turn of the loop, look many times."""
    for _ in range(LOOKS):
        await asyncio.sleep(0)
