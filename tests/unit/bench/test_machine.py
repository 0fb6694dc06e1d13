"""When a server counts as at rest."""

from collections.abc import Iterable, Sequence
from itertools import chain, repeat

import pytest

from bench.serve import machine
from bench.serve.machine import CpuUse


def told(monkeypatch: pytest.MonkeyPatch, cores: Iterable[float]) -> list[float]:
    """Have a server take `cores` in one window after the other; return what was told of it."""
    script, asked = iter(cores), []

    class Meter:
        def __init__(self, _pids: Sequence[int]) -> None:
            asked.append(next(script))

        def stop(self) -> CpuUse:
            return CpuUse(asked[-1], 0.0, 0.0, 0.0)

    monkeypatch.setattr(machine, "CpuMeter", Meter)
    monkeypatch.setattr(machine, "REST_WINDOW_S", 0.001)
    return asked


async def test_a_server_rests_once_it_takes_next_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = told(monkeypatch, chain([1.9, 0.4, 0.02], repeat(2.0)))
    await machine.at_rest([1])
    assert asked == [1.9, 0.4, 0.02]


async def test_a_server_that_never_rests_is_measured_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = told(monkeypatch, repeat(1.0))
    monkeypatch.setattr(machine, "REST_LIMIT_S", 0.005)
    await machine.at_rest([1])
    assert asked == [1.0] * 5
