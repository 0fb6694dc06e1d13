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


class Starts:
    """The processes that were started, in order; None where the system had no room."""

    def __init__(self) -> None:
        self.made: list[ChildProcess | None] = []
        self.fails: set[int] = set()
        """Which of them are to fail, from 0."""
        self._spawn = ChildProcess.spawn

    def spawn(self, *args: Any, **options: Any) -> ChildProcess:
        if len(self.made) in self.fails:
            self.made.append(None)
            raise InternalError("cannot start: Resource temporarily unavailable")
        child = self._spawn(*args, **options)
        self.made.append(child)
        return child

    def running(self) -> list[ChildProcess]:
        return [child for child in self.made if child is not None and child.running]


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    found = Starts()
    monkeypatch.setattr(respawn.ChildProcess, "spawn", found.spawn)
    return found


@pytest.fixture
def liveness() -> Iterator[Segment]:
    segment = Segment.create("liveness", LIVENESS_SEGMENT_BYTES)
    yield segment
    segment.close()


async def test_a_start_that_fails_is_tried_again(
    starts: Starts, liveness: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts.fails = {1}
    monkeypatch.setattr(respawn, "BACKOFF_MAX_S", 0.01)
    ends_at_once = [sys.executable, "-c", "raise SystemExit(1)"]
    child = respawned(ends_at_once, liveness)

    child.start()
    await wait_until_async(lambda: len(starts.made) >= 3)

    await child.stop(WAIT_S)
    assert [one is None for one in starts.made[:3]] == [False, True, False]
    assert starts.running() == []


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


async def test_a_child_that_stands_still_is_replaced(
    starts: Starts, liveness: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(respawn, "LOOK_INTERVAL_S", 0.02)
    child = respawned([sys.executable, "-c", BEATING, str(liveness.fd)], liveness)
    child.start()
    await wait_until_async(lambda: says(liveness, Phase.IDLE))
    (first,) = starts.running()

    child.send_signal(signal.SIGSTOP)
    await wait_until_async(lambda: len(starts.made) == 2)
    await wait_until_async(lambda: says(liveness, Phase.IDLE))

    assert first not in starts.running()
    with pytest.raises(ProcessLookupError):
        os.kill(first.pid, 0)
    await child.stop(WAIT_S)


async def test_a_child_that_never_says_anything_is_replaced(
    starts: Starts, liveness: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(respawn, "LOOK_INTERVAL_S", 0.02)
    monkeypatch.setattr(respawn, "START_DEADLINE_S", 0.2)
    mute = [sys.executable, "-c", "import signal; signal.pause()"]
    child = respawned(mute, liveness)
    child.start()
    (first,) = starts.running()

    await wait_until_async(lambda: len(starts.made) >= 2)

    assert first not in starts.running()
    await child.stop(WAIT_S)


async def test_a_stop_that_is_cancelled_at_once_kills_the_child(
    starts: Starts, liveness: Segment
) -> None:
    child = respawned([sys.executable, "-c", BEATING, str(liveness.fd)], liveness)
    child.start()
    await wait_until_async(lambda: says(liveness, Phase.IDLE))

    stopping = asyncio.create_task(child.stop(WAIT_S))
    await asyncio.sleep(0)  # it has begun, and waits for the first time
    stopping.cancel()
    await asyncio.wait({stopping}, timeout=WAIT_S)

    assert stopping.cancelled()
    await wait_until_async(lambda: starts.running() == [])


def respawned(argv: list[str], liveness: Segment) -> Respawned:
    return Respawned(
        "child", argv, environment=os.environ, descriptors=(liveness.fd,), liveness=liveness
    )


def says(liveness: Segment, phase: Phase) -> bool:
    record = LivenessReader(liveness).read()
    return record is not None and record.phase is phase
