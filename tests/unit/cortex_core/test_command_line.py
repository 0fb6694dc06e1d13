"""How one command ends: what stands on stderr and with what status."""

import argparse

import pytest

from cortex_core.command_line import run_command
from cortex_core.errors import ConfigError, NodeUnavailable, Timeout


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConfigError("cannot read x"), 2, "cortex: cannot read x\n"),
        (NodeUnavailable("cannot reach x"), 3, "cortex: cannot reach x\n"),
        (Timeout("cannot wait"), 1, "cortex: cannot wait\n"),
        (KeyboardInterrupt(), 130, "cortex: interrupted\n"),
    ],
)
def test_an_error_becomes_a_message_and_a_status(
    capsys: pytest.CaptureFixture[str], error: BaseException, status: int, said: str
) -> None:
    def command(_options: argparse.Namespace) -> int:
        raise error

    assert run_command("cortex", command, argparse.Namespace()) == status
    assert capsys.readouterr().err == said


def test_a_command_that_succeeds_says_so_itself() -> None:
    assert run_command("cortex", lambda options: options.answer, argparse.Namespace(answer=0)) == 0
