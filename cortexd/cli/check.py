"""`cortex check`: are the configuration files right?"""

import argparse

import msgspec

from cortex_core.config import parse_address
from cortex_core.ipc.sockets import check_socket_path
from cortexd.child_env import ADMIN_SOCKET
from cortexd.cli.show import print_json
from cortexd.config_files import DEFAULT_CONFIG, read_configuration, runtime_dir


class Report(msgspec.Struct, frozen=True):
    """What was read."""

    config: str
    listen: str
    metrics_listen: str
    runtime_dir: str
    neurons: list[str]
    models: list[str]
    aliases: dict[str, str]
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
        notes=[] if configuration.cortex.neurons else ["there are no neurons: nothing can run"],
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
