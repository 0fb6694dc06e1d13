"""How one command ends: what stands on stderr and with what status."""

import argparse
import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from cortex_core.command_line import run_command
from cortex_core.errors import ConfigError, NodeUnavailable, Timeout

Run = Callable[[Callable[[argparse.Namespace], int]], int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a function as if a module had it."""

    def run_function(function: Callable[[argparse.Namespace], int]) -> int:
        module = ModuleType("commands_of_a_test")
        module.one = function
        monkeypatch.setitem(sys.modules, module.__name__, module)
        options = argparse.Namespace(command="do")
        commands = {"do": "commands_of_a_test:one", "other": "not_there_at_all:two"}
        return run_command("cortex", commands, options)

    return run_function


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConfigError("cannot read x"), 2, "cortex: cannot read x\n"),
        (NodeUnavailable("cannot reach x"), 3, "cortex: cannot reach x\n"),
        (Timeout("cannot wait"), 1, "cortex: cannot wait\n"),
        (
            OSError(errno.ENOSPC, "No space left", "/x"),
            1,
            "cortex: cannot go on: /x: No space left\n",
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "cortex: cannot go on: Broken pipe\n"),
        (KeyboardInterrupt(), 130, "cortex: interrupted\n"),
    ],
)
def test_an_error_becomes_a_message_and_a_status(
    capsys: pytest.CaptureFixture[str], run: Run, error: BaseException, status: int, said: str
) -> None:
    def command(_options: argparse.Namespace) -> int:
        raise error

    assert run(command) == status
    assert capsys.readouterr().err == said


def test_a_command_that_succeeds_says_so_itself(run: Run) -> None:
    assert run(lambda options: 0 if options.command == "do" else 1) == 0


PRINTS = """
import argparse, sys
from cortex_core.command_line import run_command
def one(options):
    print("out")
    return 0
sys.modules["one"] = sys.modules["__main__"]
sys.exit(run_command("cortex", {"do": "one:one"}, argparse.Namespace(command="do")))
"""


def test_output_that_nobody_takes_is_told_without_a_traceback() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", PRINTS],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.stderr == "cortex: cannot go on: No space left on device\n"
    assert done.returncode == 1
