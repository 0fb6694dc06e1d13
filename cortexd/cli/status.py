"""`cortex status`."""

import argparse

import msgspec

from cortex_core.terminal import print_json, print_table
from cortexd.admin.types import FleetStatus, NodeStatus, ReplicaStatus
from cortexd.cli.gateway import admin_client


def status(options: argparse.Namespace) -> int:
    """Show nodes, replicas and queues of the running gateway."""
    with admin_client(options) as client:
        report = msgspec.convert(client.call("status"), FleetStatus)
    if options.json:
        print_json(report)
        return 0
    print_table(("NODE", "STATE", "ENDPOINT", "DEVICES", "NOTE"), map(_node_row, report.nodes))
    if report.replicas:
        print()
        columns = ("MODEL", "NODE", "STATE", "DEVICES", "MiB", "RUNNING", "WAITING")
        waiting = report.queues
        rows = ((*_replica_row(one), waiting.get(one.model_id, 0)) for one in report.replicas)
        print_table(columns, rows)
    return 0


def _node_row(node: NodeStatus) -> tuple[object, ...]:
    state = "draining" if node.draining else "up" if node.healthy else "down"
    devices = ", ".join(
        f"{device.id} {device.vram_free_mb}/{device.vram_total_mb} MiB free"
        for device in node.devices
    )
    return node.name, state, node.endpoint, devices, node.error


def _replica_row(replica: ReplicaStatus) -> tuple[object, ...]:
    state = str(replica.status)
    if replica.progress is not None:
        state += f" {replica.progress:.0%}"
    elif not replica.servable:
        state += f" (not served: {replica.reason})"
    devices = ", ".join(replica.devices)
    used_mb = replica.vram_used_mb
    return replica.model_id, replica.node, state, devices, used_mb, replica.in_flight
