"""`cortex check`: are the configuration files right?"""

import argparse
from collections.abc import Iterator
from typing import Final

import msgspec

from cortex_core.config import parse_address
from cortex_core.ipc.socket_paths import check_socket_path
from cortex_core.terminal import print_json
from cortexd.child_env import ADMIN_SOCKET
from cortexd.config_files import DEFAULT_CONFIG, Configuration, read_configuration, runtime_dir

NEURON_HARNESS: Final = "torch"


class Report(msgspec.Struct, frozen=True):
    """What was read."""

    config: str
    listen: str
    metrics_listen: str
    runtime_dir: str
    neurons: list[str]
    models: list[str]
    aliases: dict[str, str]
    tiers: dict[str, str]
    notes: list[str]


def check(options: argparse.Namespace) -> int:
    """Read everything and report; what is wrong is an error with exit status 2."""
    path = options.config or DEFAULT_CONFIG
    configuration = read_configuration(path)
    gateway = configuration.cortex.gateway
    run = runtime_dir(configuration.cortex)
    check_socket_path(run / ADMIN_SOCKET)
    report = Report(
        config=str(path),
        listen=str(parse_address(gateway.listen, key="gateway.listen")),
        metrics_listen=str(parse_address(gateway.metrics_listen, key="gateway.metrics_listen")),
        runtime_dir=str(run),
        neurons=[f"{one.name} {one.endpoint}" for one in configuration.cortex.neurons],
        models=[model.id for model in configuration.models.models],
        aliases=dict(configuration.models.aliases),
        tiers=dict(configuration.models.tiers.targets()),
        notes=list(_notes(configuration)),
    )
    if options.json:
        print_json(report)
        return 0
    print(f"configuration {report.config}: right")
    print(f"listens on {report.listen}, metrics on {report.metrics_listen}, sockets in {run}")
    print(f"neurons: {', '.join(report.neurons) or 'none'}")
    print(f"models: {', '.join(report.models) or 'only what the nodes have on disk'}")
    for note in report.notes:
        print(f"note: {note}")
    return 0


def _notes(configuration: Configuration) -> Iterator[str]:
    """Yield what can be right and still will not do with nodes of this version."""
    if not configuration.cortex.neurons:
        yield "there are no neurons: nothing can run"
    for model in configuration.models.models:
        if model.harness != NEURON_HARNESS:
            yield f"{model.id}: harness {model.harness!r}: neurond has {NEURON_HARNESS!r} alone"
        if model.quant is not None:
            yield f"{model.id}: quant {model.quant!r}: neurond takes weights as they are in files"
        if model.min_devices > 1:
            yield f"{model.id}: min_devices {model.min_devices}: neurond runs a model on one device"
