"""Calls that are written as JSON objects. Pure.

`{"name": …, "arguments": {…}}`, one or an array of them, with the names that the families have for
these keys. Arguments are kept as the model wrote them.
"""

import json
from typing import Any, Final, NoReturn

import msgspec

from neurond.text.parsing.reader import Reader, Steps
from neurond.text.parsing.segments import Call, Malformed, Tools

NAME_KEYS: Final = ("name", "tool_name", "function")
ARGUMENT_KEYS: Final = ("arguments", "parameters", "args", "input")
FIRST_KEYS: Final = frozenset({*NAME_KEYS, *ARGUMENT_KEYS, "type", "id", "tool_call_id"})
_ErrorTypes = (msgspec.DecodeError, UnicodeError, ValueError, RecursionError)


def calls_in(text: str, known: Tools | None) -> list[Call]:
    """Return the calls that a JSON text is.

    Args:
        text: an object or array, whole.
        known: the tools that may be named; None takes any name.

    Raises:
        Malformed: it is not, or not only, calls.
    """
    try:
        entries = _decoded(text)
    except _ErrorTypes as ex:
        raise Malformed(f"this is no JSON: {ex}") from ex
    calls = [_call(entry) for entry in entries]
    if not calls:
        raise Malformed("an array of no calls")
    for call in calls:
        if known is not None and call.name not in known:
            raise Malformed(f"there is no tool {call.name!r}")
    return calls


def arguments_of(text: str) -> str:
    """Return a call's arguments as an object of JSON.

    Raises:
        Malformed: they are none.
    """
    try:
        repaired = _valid(text)
        value = msgspec.json.decode(repaired)
        if isinstance(value, str):
            # An object that was written down twice.
            repaired = _valid(value)
            value = msgspec.json.decode(repaired)
    except _ErrorTypes as ex:
        raise Malformed(f"this is no JSON: {ex}") from ex
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        raise Malformed("arguments are an object")
    return repaired


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


def _decoded(text: str) -> list[dict[str, msgspec.Raw]]:
    kind = list[dict[str, msgspec.Raw]] if text.startswith("[") else dict[str, msgspec.Raw]
    value: Any = msgspec.json.decode(_valid(text).encode(), type=kind)
    return value if isinstance(value, list) else [value]


def _valid(text: str) -> str:
    """Return JSON that others read too; models leave line ends in strings as they are."""
    try:
        msgspec.json.decode(text.encode())
    except msgspec.DecodeError:
        value = json.loads(text, strict=False, parse_constant=_refuse_constant)
        return json.dumps(value, ensure_ascii=False)
    return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _call(entry: dict[str, msgspec.Raw]) -> Call:
    inner = entry.get("function")
    if inner is not None and bytes(inner).startswith(b"{"):
        entry = msgspec.json.decode(bytes(inner), type=dict[str, msgspec.Raw])
    raw_name = next((entry[key] for key in NAME_KEYS if key in entry), None)
    name = None if raw_name is None else msgspec.json.decode(bytes(raw_name))
    if not name or not isinstance(name, str):
        raise Malformed("a call without a name")
    raw = next((entry[key] for key in ARGUMENT_KEYS if key in entry), None)
    return Call(name, "{}" if raw is None else arguments_of(bytes(raw).decode()))
