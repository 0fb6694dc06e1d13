"""Finds what runs each `neuron` command."""

import importlib
from collections.abc import Sequence
from typing import Final, cast

from cortex_core.command_line import Command, run_command
from neurond.cli.arguments import parser

COMMANDS: Final[dict[str, str]] = {
    "serve": "neurond.cli.serve:serve",
    "status": "neurond.cli.status:status",
    "discover": "neurond.cli.status:discover",
    "pull": "neurond.cli.models:pull_model",
    "load": "neurond.cli.models:load",
    "unload": "neurond.cli.models:unload",
    "check": "neurond.cli.check:check",
}
"""Modules and functions: what one command needs is not imported for another."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, see `run_command`."""
    options = parser().parse_args(arguments)
    module, _, name = COMMANDS[options.command].partition(":")
    command = cast("Command", getattr(importlib.import_module(module), name))
    return run_command("neuron", command, options)
