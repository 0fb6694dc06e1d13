"""A look at what goes over the wire between a client and the gateway, byte for byte."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

CHUNK_BYTES = 65536


class Relay(socketserver.ThreadingTCPServer):
    """Passes connections on.

    `heard` is what the gateway has answered on all of them so far, `asked` what each has brought.
    """

    daemon_threads = True

    def __init__(self, base_url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        parts = urlsplit(base_url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.upstream = (parts.hostname, parts.port)
        self.base_url = f"http://127.0.0.1:{self.server_address[1]}"
        self.heard = b""
        self.asked: list[bytearray] = []
        self._lock = threading.Lock()

    def connected(self) -> bytearray:
        """Return where to put what a new connection brings."""
        with self._lock:
            self.asked.append(bytearray())
            return self.asked[-1]

    def answered(self, data: bytes) -> None:
        with self._lock:
            self.heard += data


class _Connection(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        asked = self.server.connected()
        with socket.create_connection(self.server.upstream) as upstream:
            answers = (upstream, self.request, self.server.answered)
            back = threading.Thread(target=self._pass, args=answers)
            back.start()
            self._pass(self.request, upstream, asked.extend)
            back.join()

    def _pass(
        self, source: socket.socket, target: socket.socket, note: Callable[[bytes], None]
    ) -> None:
        # Whoever goes, the other one sees it.
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                note(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def relay_to(base_url: str) -> Iterator[Relay]:
    """A relay in front of this gateway."""
    with Relay(base_url) as made:
        serving = threading.Thread(target=made.serve_forever)
        serving.start()
        try:
            yield made
        finally:
            made.shutdown()
            serving.join()
