"""Canonical events out of a byte stream that has one of them per line."""

from typing import Final, Generic, TypeVar

import msgspec

from cortex_core.decoding import UNDECODABLE
from cortex_core.errors import ProtocolError

EventT = TypeVar("EventT")
MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""`Started` carries a prompt's token ids: about seven bytes for each."""


class EventLines(Generic[EventT]):
    """Takes chunks as the socket cuts them; gives the events that are whole."""

    __slots__ = ("_decoder", "_rest")

    def __init__(self, decoder: "msgspec.json.Decoder[EventT]") -> None:
        """`decoder` reads one line; one decoder does for every stream of its kind."""
        self._decoder = decoder
        self._rest = b""

    def feed(self, chunk: bytes) -> list[EventT]:
        """Return the events that end in this chunk, in order.

        Raises:
            ProtocolError: a line is no event, or longer than is allowed.
        """
        end = chunk.rfind(b"\n")
        if end < 0:
            self._rest += chunk
            if len(self._rest) > MAX_LINE_BYTES:
                raise ProtocolError(
                    f"cannot read the event stream: a line exceeds {MAX_LINE_BYTES} bytes"
                )
            return []
        whole = self._rest + chunk[:end] if self._rest else chunk[:end]
        self._rest = chunk[end + 1 :]
        try:
            return self._decoder.decode_lines(whole)
        except UNDECODABLE as error:
            raise ProtocolError(f"cannot read the event stream: {error}") from error
