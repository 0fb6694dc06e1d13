"""The node's listening socket, made before anything that serves it is imported."""

import errno
import socket
from typing import Final

from cortex_core.config.address import Address
from cortex_core.errors import ConfigError

BACKLOG: Final = 2048


def listen(address: Address) -> socket.socket:
    """Return a socket that is bound to `address`.

    Raises:
        ConfigError: the port is in use, or the host has no such address.
    """
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, proto)
    except OSError as ex:
        raise ConfigError(f"cannot listen on {address}: {ex}", param="listen") from ex
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
        bound.listen(BACKLOG)
    except OSError as ex:
        bound.close()
        hint = ""
        if ex.errno == errno.EADDRINUSE:
            hint = "; another process uses the port: stop it, or set `port` to another one"
        raise ConfigError(f"cannot listen on {address}: {ex.strerror}{hint}", param="port") from ex
    bound.setblocking(False)
    return bound
