"""Where a request goes, and how its head is written."""

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from cortex_core.errors import ConfigError

MAX_HEAD_BYTES = 64 * 1024
"""An answer's status line and headers together; a peer that sends more is cut off."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(msgspec.Struct, frozen=True):
    """Host and port of an endpoint; what connections are pooled by."""

    host: str
    port: int
    tls: bool = False
    base_path: str = ""
    """Path that stands before every target, without a slash at the end."""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_endpoint(endpoint: str) -> Origin:
    """Take a base URL such as `http://beast.internal:13131` apart.

    Raises:
        ConfigError: it is no http or https URL with a host.
    """
    wrong = ConfigError(
        f"cannot use endpoint {endpoint!r}: expected 'http://host:port'", param="endpoint"
    )
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError as ex:
        raise wrong from ex
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or port == 0:
        raise wrong
    return Origin(
        host=parts.hostname,
        port=port or _DEFAULT_PORTS[parts.scheme],
        tls=parts.scheme == "https",
        base_path=parts.path.rstrip("/"),
    )


class ResponseHead(msgspec.Struct, frozen=True):
    """Status line and headers of an answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]


def encode_request(
    origin: Origin,
    method: str,
    target: str,
    body: bytes | None,
    headers: Mapping[str, str],
) -> bytes:
    """Return the head of a request as bytes; the body follows as it is."""
    lines = [f"{method} {origin.base_path}{target} HTTP/1.1", f"host: {origin.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    head = "\r\n".join(lines)
    return f"{head}\r\n\r\n".encode("latin-1")
