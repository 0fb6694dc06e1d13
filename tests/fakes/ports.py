"""Ports for the processes of a test."""

import contextlib
import socket


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing listens on, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]
