"""`cortex drain` and `cortex undrain`."""

import argparse
from typing import Final

import msgspec

from cortex_core.terminal import print_json
from cortexd.admin.types import NodeStatus
from cortexd.cli.gateway import admin_client
from cortexd.cli.show import drain_lines

SILENCE_S: Final = 30.0
"""Longest time without news of a drain, which tells what still runs once a second."""


def drain(options: argparse.Namespace) -> int:
    """Send nothing new to a node, and wait until nothing runs there."""
    with admin_client(options) as client:
        result = client.call(
            "drain",
            silence_s=SILENCE_S,
            on_progress=drain_lines(options.node, quiet=options.json),
            node=options.node,
            timeout_s=options.timeout,
        )
    return _report(options, result, "is drained: nothing runs there, nothing new goes there")


def undrain(options: argparse.Namespace) -> int:
    """Let a node have requests again."""
    with admin_client(options) as client:
        result = client.call("undrain", node=options.node)
    return _report(options, result, "is in service")


def _report(options: argparse.Namespace, result: object, what: str) -> int:
    node = msgspec.convert(result, NodeStatus)
    if options.json:
        print_json(node)
    else:
        print(f"{node.name} {what}")
    return 0
