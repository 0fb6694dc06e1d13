"""What both command lines print."""

import io
import json
import sys

import pytest

from cortex_core.terminal import print_json, print_table

LONG_ID = "hf:organisation/" + "a-name-that-fills-a-terminal-" * 5


def test_a_pipe_gets_every_row_whole_and_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("MODEL", "NOTE"), [(LONG_ID, None), ("b", 3)])
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["MODEL", "NOTE"]
    assert first.split() == [LONG_ID]
    assert second.split() == ["b", "3"]


def test_a_terminal_wraps_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    print_table(("MODEL", "LOADED", "CAN RUN ON"), [(LONG_ID, "yes", "beast, attic")])
    shown = terminal.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert LONG_ID in "".join(line.split()[0] for line in shown.splitlines()[1:])


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"id": "a"}])
    assert json.loads(capsys.readouterr().out) == [{"id": "a"}]
