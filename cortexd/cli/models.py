"""`cortex models`, `cortex load` and `cortex unload`."""

import argparse
from typing import Final

import msgspec

from cortex_core.ids import ReplicaId
from cortex_core.terminal import print_json, print_table
from cortexd.admin.types import ModelStatus, ReplicaStatus
from cortexd.cli.gateway import admin_client
from cortexd.cli.show import drain_lines, load_bar

LOAD_SILENCE_S: Final = 30.0
"""Longest time without news of a load; they come twice a second."""
UNLOAD_SILENCE_S: Final = 130.0
"""Longest time without news of an unload: a node may take 120 s for its own part in silence."""


def models(options: argparse.Namespace) -> int:
    """Show every model that can be asked for."""
    with admin_client(options) as client:
        report = msgspec.convert(client.call("models"), list[ModelStatus])
    if options.json:
        print_json(report)
        return 0
    print_table(("MODEL", "LOADED", "CAN RUN ON", "CONTEXT", "MiB", "ALIASES"), map(_row, report))
    return 0


def load(options: argparse.Namespace) -> int:
    """Load a model unless it is loaded."""
    with (
        admin_client(options) as client,
        load_bar(options.model, quiet=options.json) as show,
    ):
        result = client.call(
            "load",
            silence_s=LOAD_SILENCE_S,
            on_progress=show,
            model=options.model,
            node=options.node,
        )
    replica = msgspec.convert(result, ReplicaStatus)
    if options.json:
        print_json(replica)
    else:
        where = f"{replica.node} ({', '.join(replica.devices)})"
        print(f"{replica.model_id} is ready on {where}, {replica.vram_used_mb} MiB")
    return 0


def unload(options: argparse.Namespace) -> int:
    """Free a model's memory once its requests have ended."""
    with admin_client(options) as client:
        result = client.call(
            "unload",
            silence_s=UNLOAD_SILENCE_S,
            on_progress=drain_lines(options.model, quiet=options.json),
            model=options.model,
            node=options.node,
            force=options.force,
        )
    gone = msgspec.convert(result, list[ReplicaId])
    if options.json:
        print_json(gone)
    else:
        for replica in gone:
            print(f"{replica} unloaded")
    return 0


def _row(model: ModelStatus) -> tuple[object, ...]:
    ready = [replica.node for replica in model.replicas if replica.status == "ready"]
    return (
        model.id,
        ", ".join(ready) or "no",
        ", ".join(model.feasible_on) or "nowhere",
        model.limit.context,
        model.vram_estimate_mb,
        ", ".join(model.aliases),
    )
