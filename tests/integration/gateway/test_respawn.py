"""A child that ends is started again, also where the system has no room at first."""

import asyncio
import os
import sys
from typing import Any

import pytest

from cortex_core.errors import InternalError
from cortex_core.ipc.child import ChildProcess
from cortexd import respawn
from cortexd.respawn import Respawned
from tests.fakes.waiting import wait_until_async


async def test_a_start_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[bool] = []
    spawn = ChildProcess.spawn

    def with_no_room_once(*args: Any, **options: Any) -> ChildProcess:
        starts.append(len(starts) != 1)
        if not starts[-1]:
            raise InternalError("cannot start: Resource temporarily unavailable")
        return spawn(*args, **options)

    monkeypatch.setattr(respawn.ChildProcess, "spawn", with_no_room_once)
    monkeypatch.setattr(respawn, "BACKOFF_MAX_S", 0.01)
    ends_at_once = [sys.executable, "-c", "raise SystemExit(1)"]
    child = Respawned("child", ends_at_once, environment=os.environ, descriptors=())

    child.start()
    async with asyncio.timeout(30):
        await wait_until_async(lambda: starts[:3] == [True, False, True])

    await child.stop(5.0)
    assert child.pid is None
