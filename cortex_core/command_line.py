"""What both command lines share: numbers as arguments, the run of one command, its exit status."""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Final

from cortex_core.errors import ConfigError, CortexError, NodeUnavailable

FAILED: Final = 1
WRONG_CONFIG: Final = 2
NOT_RUNNING: Final = 3
INTERRUPTED: Final = 130

Command = Callable[[argparse.Namespace], int]


def run_command(program: str, commands: Mapping[str, str], options: argparse.Namespace) -> int:
    """Run `options.command`, tell on stderr what went wrong, and return the exit status.

    `commands` has `module:function` for each, so that what one needs is not imported for another:
    `serve` needs no tables, `status` no server.

    0 is success, 1 a failure that the message explains, 2 a wrong configuration or command line,
    3 a daemon that does not run, 130 an interruption by the user.
    """
    try:
        status = _imported(commands[options.command])(options)
        sys.stdout.flush()
    except ConfigError as error:
        return _failed(program, error, WRONG_CONFIG)
    except NodeUnavailable as error:
        return _failed(program, error, NOT_RUNNING)
    except CortexError as error:
        return _failed(program, error, FAILED)
    except OSError as error:
        _let_go_of_stdout()
        return _failed(program, _as_ours(error), FAILED)
    except KeyboardInterrupt:
        sys.stderr.write(f"{program}: interrupted\n")
        return INTERRUPTED
    return status


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return what reads an argument of `least` to `most` for argparse."""

    def read(text: str) -> int:
        with contextlib.suppress(ValueError):
            if least <= (number := int(text)) <= most:
                return number
        raise argparse.ArgumentTypeError(
            f"expected a whole number of {least} to {most}, got {text!r}"
        )

    return read


def seconds(most: int) -> Callable[[str], float]:
    """Return what reads an argument of 0 to `most` seconds for argparse."""

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if 0 <= (number := float(text)) <= most:  # never true of NaN
                return number
        raise argparse.ArgumentTypeError(f"expected 0 to {most} seconds, got {text!r}")

    return read


def _imported(dotted_name: str) -> Command:
    module, _, function = dotted_name.partition(":")
    command: Command = getattr(importlib.import_module(module), function)
    return command


def _let_go_of_stdout() -> None:
    """Drop what a closed pipe or a full disk did not take: it would be tried again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _as_ours(error: OSError) -> CortexError:
    place = "" if error.filename is None else f"{error.filename}: "
    return CortexError(f"cannot go on: {place}{error.strerror or error}")


def _failed(program: str, error: CortexError, status: int) -> int:
    sys.stderr.write(f"{program}: {error.message}\n")
    return status
