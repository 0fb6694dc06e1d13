"""TCP sockets that the parent opens for its children, so that a taken port is known at once."""

import errno
import socket

from cortex_core.config import Address, parse_address
from cortex_core.errors import CortexError

BACKLOG = 2048
"""Connections that may wait to be taken."""


class PortInUse(CortexError):
    """An address cannot be listened on."""

    code = "address_in_use"


def listen_on(text: str, *, key: str) -> socket.socket:
    """Return a socket that listens on `text`; connections wait in it until somebody accepts.

    Raises:
        ConfigError: `text`, the value of `key`, is no address.
        PortInUse: the address is taken, or not one of this host.
    """
    address = parse_address(text, key=key)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server(
            (address.host, address.port), family=family, backlog=BACKLOG, reuse_port=False
        )
    except OSError as error:
        raise PortInUse(_cause(address, key, error)) from error


def check_free(text: str, *, key: str) -> None:
    """Return if somebody could listen on `text` now. Raises: as `listen_on`."""
    listen_on(text, key=key).close()


def _cause(address: Address, key: str, error: OSError) -> str:
    why = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        advice = f"stop what uses that port, or set {key} to another one"
    else:
        advice = f"set {key} to an address of this host, and a port that this user may have"
    return f"cannot listen on {address}: {why}; {advice}"
