"""The load client finds what is wrong with its options before it sends a request."""

import os
from pathlib import Path

import pytest

from bench.serve.arguments import arguments


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """The options that have to be there."""
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.touch()
    return ["--model", "m", "--tokenizer", str(tokenizer)]


def test_defaults_go_through_the_same_checks(given: list[str]) -> None:
    options = arguments(given)
    assert options.workloads == ["W1", "W2", "W3", "W4"]
    assert options.extra == {"ignore_eos": True}
    assert options.pid == []


def test_options_are_read(given: list[str]) -> None:
    mine = ["--pid", str(os.getpid()), "--workloads", "W4,W2x64", "--extra", '{"seed": 1}']
    options = arguments([*given, *mine, "--repetitions", "2"])
    assert options.pid == [os.getpid()]
    assert options.workloads == ["W4", "W2x64"]
    assert options.extra == {"seed": 1}
    assert options.repetitions == 2


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--workloads", "W1,W9", "cannot use 'W9': there are W1, W2, W2x64"),
        ("--workloads", "", "cannot use '': there are W1"),
        ("--extra", "{seed: 1}", "cannot read '{seed: 1}'"),
        ("--extra", "[1]", "give a JSON object"),
        ("--tokenizer", "gone.json", "cannot read 'gone.json': no such file"),
        ("--pid", "4999999", "cannot watch '4999999': no such process"),
        ("--pid", "-1", "cannot watch '-1'"),
        ("--repetitions", "0", "cannot use '0': give a number from 1"),
        ("--context", "8k", "cannot use '8k'"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_wrong(
    given: list[str], capsys: pytest.CaptureFixture[str], option: str, value: str, says: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments([*given, f"{option}={value}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"argument {option}: " in said
    assert says in said
