"""Calls that are written as JSON objects. Pure.

`{"name": …, "arguments": {…}}`, with the names that the families have for these keys. Arguments are
kept as the model wrote them, but for what is mended.
"""

from typing import Final

import msgspec

from neurond.text.parsing.json_stream import told_object
from neurond.text.parsing.reader import Reader, Steps
from neurond.text.parsing.segments import Call, Malformed, Tools

NAME_KEYS: Final = ("name", "tool_name", "function")
ARGUMENT_KEYS: Final = ("arguments", "parameters", "args", "input")
FIRST_KEYS: Final = frozenset({*NAME_KEYS, *ARGUMENT_KEYS, "type", "id", "tool_call_id"})
_ErrorTypes = (msgspec.DecodeError, UnicodeError, ValueError, RecursionError)


def call_in(text: str, known: Tools | None) -> Call:
    """Return the call that an object of JSON is.

    Args:
        text: the object, whole.
        known: the tools that may be named; None takes any name.

    Raises:
        Malformed: it is none.
    """
    try:
        entry = msgspec.json.decode(mended(text).encode(), type=dict[str, msgspec.Raw])
        call = _call(entry)
    except _ErrorTypes as ex:
        raise Malformed(f"this is no JSON: {ex}") from ex
    if known is not None and call.name not in known:
        raise Malformed(f"there is no tool {call.name!r}")
    return call


def mended(text: str) -> str:
    """Return an object of JSON without the slips that `json_stream` mends.

    Raises:
        Malformed: it is none.
    """
    try:
        msgspec.json.decode(text.encode())
    except msgspec.DecodeError:
        reader = Reader()
        reader.feed(text)
        reader.mark()
        reader.end()
        pieces: list[str] = []
        for _ in told_object(reader, pieces.append):
            raise AssertionError("all of the text is there") from None
        if reader.rest.strip():
            raise Malformed("something follows the object") from None
        return "".join(pieces)
    return text


def looks_like_call(reader: Reader) -> Steps[None]:
    """Look at the first key of what stands here as soon as it is there; takes nothing.

    Raises:
        Malformed: it is no call's.
    """
    place = reader.place()
    yield from reader.expect("{", "[")
    while (character := (yield from reader.skip_blank())) and character in "[{":
        reader.take(1)
    yield from reader.expect('"')
    if (yield from reader.word()) not in FIRST_KEYS:
        raise Malformed("this is other JSON")
    reader.back(place)


def _call(entry: dict[str, msgspec.Raw]) -> Call:
    inner = entry.get("function")
    if inner is not None and bytes(inner).startswith(b"{"):
        entry = msgspec.json.decode(bytes(inner), type=dict[str, msgspec.Raw])
    raw_name = next((entry[key] for key in NAME_KEYS if key in entry), None)
    name = None if raw_name is None else msgspec.json.decode(bytes(raw_name))
    if not name or not isinstance(name, str):
        raise Malformed("a call without a name")
    raw = next((entry[key] for key in ARGUMENT_KEYS if key in entry), None)
    return Call(name, "{}" if raw is None else _arguments(bytes(raw).decode()))


def _arguments(text: str) -> str:
    """Return arguments, as they are written in a call, as an object."""
    value = msgspec.json.decode(text)
    if isinstance(value, str):
        # An object that was written down twice.
        text = mended(value)
        value = msgspec.json.decode(text)
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        raise Malformed("arguments are an object")
    return text
