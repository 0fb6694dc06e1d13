"""The command line of the load client: what is wrong with it is said before anything is sent."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from bench.named import positive, some_of
from bench.serve.workloads import WORKLOADS

DESCRIPTION = """
Put workloads to a running server; prints a table, and one JSON document as the last line.
"""


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the checked options; what is wrong ends the program with status 2."""
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=DESCRIPTION)
    parser.add_argument("--url", default="http://127.0.0.1:31313")
    parser.add_argument("--model", required=True)
    parser.add_argument("--api", default="completions", choices=["completions", "chat"])
    parser.add_argument("--tokenizer", required=True, type=_file, help="the model's tokenizer.json")
    parser.add_argument(
        "--pid",
        type=_process,
        action="append",
        default=[],
        help="root of a tree of the server's processes, once for each; without it the server's "
        "work on this machine is taken for others' and no run counts",
    )
    parser.add_argument(
        "--workloads",
        type=some_of(WORKLOADS),
        default="W1,W2,W3,W4",
        help=f"some of {','.join(WORKLOADS)} (default: %(default)s)",
    )
    parser.add_argument("--repetitions", type=positive, default=5)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--tag", default="server")
    parser.add_argument(
        "--extra",
        type=_json_object,
        default='{"ignore_eos": true}',
        help="JSON object that is merged into each request (default: %(default)s)",
    )
    parser.add_argument(
        "--context",
        type=positive,
        metavar="TOKENS",
        help="longest sequence of the server: W6 leaves out prompts that do not fit",
    )
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds per request")
    parser.add_argument("--out", type=Path, help="append the JSON document to this file")
    return parser.parse_args(argv)


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as ex:
        raise argparse.ArgumentTypeError(f"cannot read {text!r}: {ex}; give JSON") from ex
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"cannot merge {text!r}: give a JSON object")
    return value


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"cannot read {text!r}: no such file")
    return path


def _process(text: str) -> int:
    if not text.isdecimal() or not psutil.pid_exists(int(text)):
        raise argparse.ArgumentTypeError(f"cannot watch {text!r}: no such process")
    return int(text)
