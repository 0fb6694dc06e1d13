"""One HTTP answer as it arrives: bytes in, head and body out. Knows no socket."""

import collections

import httptools

from cortexd.http1.errors import BadAnswer
from cortexd.http1.message import MAX_HEAD_BYTES, ResponseHead

_FIRST_FINAL_STATUS = 200


class Answer:
    """Parses exactly one answer; provisional ones (100 to 199) before it are passed over.

    Attributes:
        head: status line and headers, once they are whole.
        complete: the last byte of the body has come.
        keep_alive: the peer will take another request on this connection.
        begun: at least one byte has come.
        buffered_bytes: body bytes that were not taken yet.
    """

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.complete = False
        self.keep_alive = False
        self.begun = False
        self.buffered_bytes = 0
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._unended_bytes = 0
        self._chunks: collections.deque[bytes] = collections.deque()

    def feed(self, data: bytes) -> None:
        """Take what the socket gave.

        Raises:
            BadAnswer: it is no HTTP, has too long a head, or comes after the answer's end.
        """
        if self.complete:
            raise BadAnswer("it sent more than it was asked for")
        self.begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise BadAnswer(f"it sent what is no HTTP: {error}") from error
        # The parser keeps no bound of its own, neither on headers nor on one that has not ended.
        self._unended_bytes += len(data) if self.head is None else 0
        if max(self._header_bytes, self._unended_bytes) > MAX_HEAD_BYTES:
            raise BadAnswer(f"its headers are longer than {MAX_HEAD_BYTES} bytes")

    def peer_closed(self) -> None:
        """Take the orderly end of the connection, which also ends a body of unknown length."""
        self.keep_alive = False
        if self.head is not None and self._until_close():
            self.complete = True

    def take(self) -> bytes:
        """Return the body bytes that came since the last call."""
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self.buffered_bytes = 0
        return data

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._header_bytes += len(name) + len(value)
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Called by the parser, for provisional answers too."""
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, {}
        if status >= _FIRST_FINAL_STATUS:
            self.keep_alive = self._parser.should_keep_alive()
            self.head = ResponseHead(status=status, headers=headers)

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._chunks.append(data)
        self.buffered_bytes += len(data)

    def on_message_complete(self) -> None:
        """Called by the parser, for provisional answers too."""
        self.complete = self.head is not None

    def _until_close(self) -> bool:
        headers = self.head.headers if self.head is not None else {}
        return "content-length" not in headers and "transfer-encoding" not in headers
