"""Canonical events out of a byte stream that has one of them per line."""

from typing import Final

import msgspec

from cortex_core.canonical import Event
from cortex_core.errors import ProtocolError

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""`Started` carries a prompt's token ids: about seven bytes for each."""


_DECODER: Final[msgspec.json.Decoder[Event]] = msgspec.json.Decoder(Event)


class EventLines:
    """Takes chunks as the socket cuts them; gives the events that are whole."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Event]:
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
            return _DECODER.decode_lines(whole)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"cannot read the event stream: {error}") from error
