"""A child that ends or hangs is replaced, also where the system has no room at first."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from cortex_core.errors import InternalError
from cortex_core.ipc.child import ChildProcess
from cortex_core.ipc.liveness import LIVENESS_SEGMENT_BYTES, LivenessReader, Phase
from cortex_core.ipc.segment import Segment
from cortexd import respawn
from cortexd.respawn import Respawned
from tests.fakes.waiting import WAIT_S, wait_until_async


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
    async with asyncio.timeout(WAIT_S):
        await wait_until_async(lambda: starts[:3] == [True, False, True])

    await child.stop(WAIT_S)
    assert child.pid is None


BEATING = """
import os, sys, time
from cortex_core.ipc.liveness import LivenessWriter, Phase
from cortex_core.ipc.parent import write_stacks_on_signal
from cortex_core.ipc.segment import Segment

write_stacks_on_signal()
liveness = LivenessWriter(Segment.attach(int(sys.argv[1])))
while True:
    liveness.enter(Phase.IDLE, 2.0)
    time.sleep(0.02)
"""


@pytest.fixture
def liveness() -> Iterator[Segment]:
    segment = Segment.create("liveness", LIVENESS_SEGMENT_BYTES)
    yield segment
    segment.close()


async def test_a_child_that_stands_still_is_replaced(
    liveness: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(respawn, "LOOK_INTERVAL_S", 0.02)
    child = beating(liveness)
    child.start()
    await wait_until_async(lambda: says(liveness, Phase.IDLE))
    first = child.pid
    assert first is not None

    os.kill(first, signal.SIGSTOP)
    await wait_until_async(lambda: child.pid not in (None, first))
    await wait_until_async(lambda: says(liveness, Phase.IDLE))

    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    await child.stop(WAIT_S)


async def test_a_child_that_never_says_anything_is_replaced(
    liveness: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(respawn, "LOOK_INTERVAL_S", 0.02)
    monkeypatch.setattr(respawn, "START_DEADLINE_S", 0.2)
    mute = [sys.executable, "-c", "import signal; signal.pause()"]
    child = Respawned("child", mute, environment=os.environ, descriptors=(), liveness=liveness)
    child.start()
    first = child.pid

    await wait_until_async(lambda: child.pid not in (None, first))

    await child.stop(WAIT_S)


def beating(liveness: Segment) -> Respawned:
    argv = [sys.executable, "-c", BEATING, str(liveness.fd)]
    return Respawned(
        "child", argv, environment=os.environ, descriptors=(liveness.fd,), liveness=liveness
    )


def says(liveness: Segment, phase: Phase) -> bool:
    record = LivenessReader(liveness).read()
    return record is not None and record.phase is phase
