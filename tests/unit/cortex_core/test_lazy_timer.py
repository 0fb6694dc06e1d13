"""Waits that follow one another share a timer, and each still ends when its time is over."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.lazy_timer import LazyTimer


class Handle:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Has a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.handles: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, call: Callable[[], None]) -> Handle:
        self.handles.append(Handle(at, call))
        return self.handles[-1]

    def pass_until(self, until: float) -> None:
        while due := [h for h in self.handles if not h.cancelled and h.at <= until]:
            first = min(due, key=lambda handle: handle.at)
            self.handles.remove(first)
            self.now = max(self.now, first.at)
            first.call()
        self.now = until


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    return loop


def test_many_short_waits_take_one_timer(loop: Loop) -> None:
    expired: list[float] = []
    timer = LazyTimer(lambda: expired.append(loop.now))
    for step in range(40):
        loop.pass_until(step / 8)
        timer.start(0.5)
    assert len(loop.handles) == 1
    assert expired == []
    loop.pass_until(10.0)
    assert loop.handles == []
    assert expired == [39 / 8 + 0.5]


def test_a_shorter_wait_is_not_held_up_by_a_longer_one(loop: Loop) -> None:
    expired: list[float] = []
    timer = LazyTimer(lambda: expired.append(loop.now))
    timer.start(1800.0)
    timer.start(0.5)
    loop.pass_until(2000.0)
    assert expired == [0.5]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_a_wait_expires_when_its_time_is_over_and_only_then(
    waits: list[tuple[int, int]],
) -> None:
    """Each is given a time, and the next one begins after another."""
    loop, expired, expected = Loop(), [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "get_running_loop", lambda: loop)
        timer = LazyTimer(lambda: expired.append(loop.now))
        for timeout_s, lasts_s in waits:
            began = loop.now
            timer.start(timeout_s)
            if lasts_s >= timeout_s:
                expected.append(began + timeout_s)
            loop.pass_until(began + lasts_s)
    assert expired == expected
