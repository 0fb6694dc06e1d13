"""Ports for the processes of a test."""

import errno
import random
import socket
from pathlib import Path

FIRST_PORT = 10_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing listens on, all different, and none that was given before.

    They lie below those that the kernel gives to connections: one of these could be taken by any
    connection of any process before the test's own has bound it.
    """
    return [_free_port() for _ in range(count)]


def _free_port() -> int:
    while True:
        # Other runs of the tests choose at the same time, so not from the same seed.
        port = random.SystemRandom().randrange(FIRST_PORT, _first_ephemeral())
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as ex:
        if ex.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def _first_ephemeral() -> int:
    first = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else 32_768
    # A host whose connections may have nearly all of them leaves no others to choose from.
    return first if first > 2 * FIRST_PORT else 65_536
