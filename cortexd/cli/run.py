"""Runs one `cortex` command and turns errors into exit codes."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Final

from cortex_core.errors import ConfigError, CortexError, NodeUnavailable
from cortexd.cli.arguments import parser

FAILED: Final = 1
WRONG_CONFIG: Final = 2
NOT_RUNNING: Final = 3
INTERRUPTED: Final = 130

Command = Callable[[argparse.Namespace], int]
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
    """Run the command line; returns the exit status.

    0 is success, 1 a failure that the message explains, 2 a wrong configuration or command line,
    3 a gateway that does not run, 130 an interruption by the user.
    """
    options = parser().parse_args(arguments)
    try:
        return _command(options.command)(options)
    except ConfigError as error:
        return _failed(error, WRONG_CONFIG)
    except NodeUnavailable as error:
        return _failed(error, NOT_RUNNING)
    except CortexError as error:
        return _failed(error, FAILED)
    except KeyboardInterrupt:
        print("cortex: interrupted", file=sys.stderr)
        return INTERRUPTED


def _command(name: str) -> Command:
    # Each command imports only what it needs: `serve` no tables, `status` no server.
    module, _, function = _COMMANDS[name].partition(":")
    command: Command = getattr(importlib.import_module(module), function)
    return command


def _failed(error: CortexError, status: int) -> int:
    print(f"cortex: {error.message}", file=sys.stderr)
    return status
