"""Runs one `neuron` command and turns errors into exit codes."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Final

from cortex_core.errors import ConfigError, CortexError, NodeUnavailable
from neurond.cli import check, models, serve, status
from neurond.cli.arguments import parser

FAILED: Final = 1
WRONG_CONFIG: Final = 2
NOT_RUNNING: Final = 3
INTERRUPTED: Final = 130

Command = Callable[[argparse.Namespace], int]
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
    """Run the command line; returns the exit status.

    0 is success, 1 a failure that the message explains, 2 a wrong configuration or command line,
    3 a node that does not run, 130 an interruption by the user.
    """
    options = parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except ConfigError as ex:
        return _failed(ex, WRONG_CONFIG)
    except NodeUnavailable as ex:
        return _failed(ex, NOT_RUNNING)
    except CortexError as ex:
        return _failed(ex, FAILED)
    except KeyboardInterrupt:
        print("neuron: interrupted", file=sys.stderr)
        return INTERRUPTED


def _failed(error: CortexError, status: int) -> int:
    print(f"neuron: {error.message}", file=sys.stderr)
    return status
