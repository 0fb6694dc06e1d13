"""An HTTP server for downloads that can stall, cut off, forget ranges and fail."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.fakes.waiting import WAIT_S

STALL_BYTES = 10_000
"""Shorter bodies, such as index pages, never stall."""


class FileServer:
    """Serves bytes by path. Change the attributes while it runs.

    Attributes:
        files: path to content.
        content_types: path to content type, where it matters.
        cut_after: end the connection after so many bytes of a body, so many times.
        ranges: whether `Range` is understood.
        failures: statuses to answer with before anything else.
        stall: let bodies stop in the middle, resumed ones at once, until this is set.
        requests: (path, Range header, Authorization header) of every request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.content_types: dict[str, str] = {}
        self.redirects: dict[str, str] = {}
        self.cut_after: int | None = None
        self.cuts_left = 0
        self.ranges = True
        self.failures: list[int] = []
        self.stall: threading.Event | None = None
        self.requests: list[tuple[str, str | None, str | None]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self.stall is not None:
            self.stall.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def file_server() -> Iterator[FileServer]:
    """A running server."""
    server = FileServer()
    server.start()
    try:
        yield server
    finally:
        server.close()


def _handler_of(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args: object) -> None: ...

        def do_GET(self) -> None:
            wanted_range = self.headers.get("Range")
            server.requests.append((self.path, wanted_range, self.headers.get("Authorization")))
            if server.failures:
                self.send_error(server.failures.pop(0))
                return
            if target := server.redirects.get(self.path):
                self.send_response(302)
                self.send_header("Location", target)
                self.end_headers()
                return
            content = server.files.get(self.path.partition("?")[0])
            if content is None:
                self.send_error(404)
                return
            self._send(content, wanted_range if server.ranges else None)

        def _send(self, content: bytes, wanted_range: str | None) -> None:
            start = 0
            if wanted_range:
                start = int(wanted_range.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
            self.send_response(206 if wanted_range else 200)
            kind = server.content_types.get(self.path, "application/octet-stream")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body = content[start:]
            if server.cut_after is not None and server.cuts_left > 0:
                server.cuts_left -= 1
                body = body[: server.cut_after]
            if server.stall is not None and len(body) > STALL_BYTES:
                self.wfile.write(b"" if wanted_range else body[: len(body) // 2])
                server.stall.wait(10 * WAIT_S)
                return
            self.wfile.write(body)

    return Handler
