"""`neuron status` and `neuron discover`."""

import argparse

import msgspec

from cortex_core.terminal import print_json
from neurond.admin.verbs import Status
from neurond.cli.host import host_view
from neurond.cli.node import admin_client
from neurond.cli.show import print_discovery, print_health, print_models
from neurond.config import read_neuron_config
from neurond.devices import Devices


def status(options: argparse.Namespace) -> int:
    """Show a running node."""
    with admin_client(options) as client:
        answer = msgspec.convert(client.call("status"), Status)
    if options.json:
        print_json(answer)
        return 0
    print_discovery(answer.discovery)
    if answer.health.draining:
        print("draining: no new work is taken")
    print_health(answer.health)
    print_models(answer.models)
    return 0


def discover(options: argparse.Namespace) -> int:
    """Show what this host offers; no node needs to run."""
    config = read_neuron_config(options.config)
    found = host_view(Devices.discover([*config.device_names()]))
    if options.json:
        print_json(found)
    else:
        print_discovery(found)
    return 0
