"""Requests whose answer nobody reads, or reads late."""

import contextlib
import socket
from collections.abc import Iterator

import httpx

from tests.fakes.waiting import WAIT_S


@contextlib.contextmanager
def sent(request: httpx.Request, *, receive_buffer_bytes: int = 65536) -> Iterator[socket.socket]:
    """Send `request` on a connection of its own and yield that, with the whole answer to come."""
    url = request.url
    head = "".join(f"{name}: {text}\r\n" for name, text in request.headers.items())
    with socket.socket() as connection:
        # It has to be set before the connection is made to bound what the peer may send.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        connection.settimeout(WAIT_S)
        connection.connect((url.host, url.port))
        start = f"{request.method} {url.raw_path.decode()} HTTP/1.1\r\n"
        connection.sendall(f"{start}{head}\r\n".encode() + request.read())
        yield connection


def rest_of(connection: socket.socket) -> bytes:
    """Return what still comes over a connection that the peer has closed or reset."""
    pieces = []
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(1 << 20):
            pieces.append(piece)
    return b"".join(pieces)
