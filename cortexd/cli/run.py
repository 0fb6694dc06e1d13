"""Finds what runs each `cortex` command."""

from collections.abc import Sequence
from typing import Final

from cortex_core.command_line import run_command
from cortexd.cli.arguments import parser

COMMANDS: Final = {
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
    return run_command("cortex", COMMANDS, parser().parse_args(arguments))
