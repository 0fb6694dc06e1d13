"""What a load shows while it goes on."""

import pytest

from cortex_core.canonical import Loading
from cortex_core.load_bar import load_bar


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


def test_stage_share_and_time_left_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with load_bar("file:a[b]", quiet=False) as show:
        show(Loading("fetching", 0.25, 12.4))

    said = capsys.readouterr()
    assert "file:a[b]: fetching, 12 s left" in said.err
    assert "25%" in said.err
    assert said.out == ""


def test_a_quiet_load_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with load_bar("file:a", quiet=True) as show:
        show(Loading("loading"))

    assert capsys.readouterr() == ("", "")
