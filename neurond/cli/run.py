"""Finds what runs each `neuron` command."""

from collections.abc import Sequence
from typing import Final

from cortex_core.command_line import Command, run_command
from neurond.cli import check, models, serve, status
from neurond.cli.arguments import parser

COMMANDS: Final[dict[str, Command]] = {
    "serve": serve.serve,
    "status": status.status,
    "discover": status.discover,
    "pull": models.pull_model,
    "load": models.load,
    "unload": models.unload,
    "check": check.check,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, see `run_command`."""
    options = parser().parse_args(arguments)
    return run_command("neuron", COMMANDS[options.command], options)
