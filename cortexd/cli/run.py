"""Finds what runs each `cortex` command."""

import argparse
import importlib
from collections.abc import Sequence
from typing import Final

from cortex_core.command_line import Command, run_command
from cortexd.cli.arguments import parser

_COMMANDS: Final = {
    "serve": "cortexd.cli.serve:serve_gateway",
    "up": "cortexd.up.command:up",
    "status": "cortexd.cli.status:status",
    "models": "cortexd.cli.models:models",
    "load": "cortexd.cli.models:load",
    "unload": "cortexd.cli.models:unload",
    "drain": "cortexd.cli.nodes:drain",
    "undrain": "cortexd.cli.nodes:undrain",
    "chat": "cortexd.cli.chat:chat",
    "check": "cortexd.cli.check:check",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, see `run_command`."""
    options = parser().parse_args(arguments)
    return run_command("cortex", _run, options)


def _run(options: argparse.Namespace) -> int:
    return _command(options.command)(options)


def _command(name: str) -> Command:
    # Each command imports only what it needs: `serve` no tables, `status` no server.
    module, _, function = _COMMANDS[name].partition(":")
    command: Command = getattr(importlib.import_module(module), function)
    return command
