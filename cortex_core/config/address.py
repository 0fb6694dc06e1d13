"""Addresses as configuration files write them."""

import msgspec

from cortex_core.errors import ConfigError

MAX_PORT = 65535
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to


class Address(msgspec.Struct, frozen=True):
    """Where a server listens. Port 0 lets the kernel choose."""

    host: str
    port: int

    def from_here(self) -> "Address":
        """Return where a client on this host reaches the server."""
        return Address(_LOOPBACK.get(self.host, self.host), self.port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, *, key: str) -> Address:
    """Read `host:port`; an IPv6 host stands in brackets, as in `[::1]:31313`.

    `key` is the configuration key that the error names.

    Raises:
        ConfigError: it is no such thing.
    """
    host, separator, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        separator = ""
    number = int(port) if port.isascii() and port.isdigit() else None
    if not separator or not host or number is None or number > MAX_PORT:
        raise ConfigError(
            f"cannot read {key}: expected 'host:port' with a port of 0 to {MAX_PORT} such as "
            f"'0.0.0.0:31313', got {text!r}",
            param=key,
        )
    return Address(host, number)
