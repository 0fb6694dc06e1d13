"""Finds what runs each `neuron` command."""

from collections.abc import Sequence
from typing import Final

from cortex_core.command_line import run_command
from neurond.cli.arguments import parser

COMMANDS: Final = {
    "serve": "neurond.cli.serve:serve",
    "status": "neurond.cli.status:status",
    "discover": "neurond.cli.status:discover",
    "pull": "neurond.cli.models:pull_model",
    "load": "neurond.cli.models:load",
    "unload": "neurond.cli.models:unload",
    "check": "neurond.cli.check:check",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, see `run_command`."""
    return run_command("neuron", COMMANDS, parser().parse_args(arguments))
