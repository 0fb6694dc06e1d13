"""A count below one is refused before anything is measured."""

import sys
from collections.abc import Callable

import pytest

from bench import bound, speculation
from bench.peers.__main__ import arguments


@pytest.mark.parametrize(
    ("program", "option"),
    [(arguments, "--repetitions"), (bound.main, "--rounds"), (speculation.main, "--rounds")],
)
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_count_is_at_least_one(
    program: Callable[[], object],
    option: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", f"{option}={value}"])
    with pytest.raises(SystemExit) as ended:
        program()
    assert ended.value.code == 2
    assert f"{option}: cannot use {value!r}: give a number from 1" in capsys.readouterr().err
