"""An actor process that is given up before anybody watches it."""

import logging
from typing import Any, cast

import pytest

from neurond.actor.launch import Launch
from neurond.supervisor.spawn import ActorProcess


class Unreaped:
    """A process of `multiprocess` that hangs in the kernel, or does not."""

    pid = 4711
    exitcode: int | None = None
    closed = False

    def __init__(self, *, hangs: bool) -> None:
        self._hangs = hangs

    def Process(self, **_options: Any) -> "Unreaped":  # noqa: N802 the name is multiprocess's
        return self

    def start(self) -> None:
        pass

    def kill(self) -> None:
        pass

    def join(self, timeout: float | None = None) -> None:
        assert timeout is not None, "would wait for ever"
        if not self._hangs:
            self.exitcode = -9

    def close(self) -> None:
        assert self.exitcode is not None, "cannot close a process while it is running"
        self.closed = True


@pytest.mark.parametrize("hangs", [False, True])
def test_a_process_nobody_watches_is_waited_for_within_bounds(
    hangs: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process = Unreaped(hangs=hangs)
    monkeypatch.setattr("multiprocess.get_context", lambda _method: process)

    with caplog.at_level(logging.ERROR):
        ActorProcess(cast("Launch", Named())).discard()

    assert process.closed != hangs
    assert ("actor not reaped" in caplog.text) == hangs


class Named:
    """All that is asked of a `Launch` here."""

    device = "cpu0"
