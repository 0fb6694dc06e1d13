"""Framing of server-sent events, and the JSON text inside a frame."""

import re

import msgspec

_encode = msgspec.json.encode

# Unicode's line separators: JSON lets them stand, and clients that split a stream with a
# Unicode-aware splitlines() cut a frame in two at them.
_ESCAPED = {
    "\x85".encode(): rb"\u0085",
    "\u2028".encode(): rb"\u2028",
    "\u2029".encode(): rb"\u2029",
}
_LINE_END = re.compile("[\x85\u2028\u2029]")


def json_bytes(value: object) -> bytes:
    """Return `value` as JSON that is safe inside one line of a frame."""
    return _escape_line_ends(_encode(value))


def json_text(text: str) -> bytes:
    """Return `text` as a JSON string that is safe inside one line of a frame."""
    encoded = _encode(text)
    if text.isascii() or _LINE_END.search(text) is None:
        return encoded
    return _escape_line_ends(encoded)


def data_frame(payload: bytes) -> bytes:
    """Return a frame without a name (OpenAI). `payload` has no line end."""
    return b"data: " + payload + b"\n\n"


def named_frame(name: bytes, payload: bytes) -> bytes:
    """Return a frame with an `event:` line (Anthropic). `payload` has no line end."""
    return b"event: " + name + b"\ndata: " + payload + b"\n\n"


def comment(text: str) -> bytes:
    """Return a comment, which every client skips but counts as a sign of life."""
    return b": " + " ".join(text.split()).encode() + b"\n\n"


def _escape_line_ends(encoded: bytes) -> bytes:
    if encoded.isascii():
        return encoded
    for raw, escaped in _ESCAPED.items():
        if raw in encoded:
            encoded = encoded.replace(raw, escaped)
    return encoded
