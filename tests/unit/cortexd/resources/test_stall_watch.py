"""A client that stops reading is given up; one that reads, however late, is not."""

import asyncio

import pytest

from cortexd.resources.stall_watch import StallWatch

FOREVER_S = 30.0


async def test_what_is_never_taken_cancels_the_task() -> None:
    async def stalled() -> None:
        with StallWatch(stalled_s=0.05) as watch:
            watch.handed()
            await asyncio.sleep(FOREVER_S)

    task = asyncio.create_task(stalled())
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, FOREVER_S / 2)


async def test_a_long_wait_for_something_to_say_is_no_stall() -> None:
    async def slow_model() -> str:
        with StallWatch(stalled_s=0.02) as watch:
            watch.handed()
            watch.taken()
            await asyncio.sleep(0.2)
        await asyncio.sleep(0.1)
        return "alive"

    assert await slow_model() == "alive"
