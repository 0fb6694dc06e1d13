"""Calls that are objects of JSON, told as they come. Pure.

`{"name": …, "arguments": {…}}`, one or an array of them. A call is certain where its arguments open
behind its name; one that is written in another order, or whose arguments are no object, is told
when it is whole.
"""

import json
from typing import NamedTuple

from neurond.text.parsing.call_sink import CallSink
from neurond.text.parsing.json_stream import told_object
from neurond.text.parsing.json_text import ARGUMENT_KEYS, NAME_KEYS, call_in
from neurond.text.parsing.reader import Reader, Steps
from neurond.text.parsing.segments import Malformed, Tools


class _Head(NamedTuple):
    """What stands before the arguments; `depth` brackets are open there."""

    name: str
    depth: int


def json_calls(reader: Reader, known: Tools | None, sink: CallSink) -> Steps[None]:
    """Read a call, or an array of calls.

    Args:
        reader: is marked.
        known: the tools that may be named; None takes any name.
        sink: is told.

    Raises:
        Malformed: what follows the last call that was told is none.
    """
    if (yield from reader.skip_blank()) != "[":
        yield from _one(reader, known, sink)
        return
    reader.take(1)
    while True:
        yield from reader.skip_blank()
        yield from _one(reader, known, sink)
        yield from reader.skip_blank()
        if (yield from reader.expect(",", "]")) == "," and (yield from reader.skip_blank()) != "]":
            continue
        yield from reader.try_take("]")
        reader.mark()
        return


def told_call(reader: Reader, name: str, sink: CallSink) -> Steps[None]:
    """Read the arguments of a call, which are an object.

    Raises:
        Malformed: they are none, or the call has no name.
    """
    if (yield from reader.skip_blank()) != "{":
        raise Malformed("arguments are an object")
    sink.begin(name)
    yield from told_object(reader, sink.more)
    sink.end()


def _one(reader: Reader, known: Tools | None, sink: CallSink) -> Steps[None]:
    place = reader.place()
    head = yield from _head(reader)
    if head is None:
        reader.back(place)
        sink.whole(call_in((yield from reader.json()), known))
        return
    if known is not None and head.name not in known:
        raise Malformed(f"there is no tool {head.name!r}")
    yield from told_call(reader, head.name, sink)
    yield from _behind(reader, head.depth)
    reader.mark()


def _head(reader: Reader) -> Steps[_Head | None]:
    """Take what stands before arguments that can be told as they come; None where they cannot."""
    try:
        return (yield from _members(reader))
    except Malformed:
        return None


def _members(reader: Reader) -> Steps[_Head]:
    names: dict[str, str] = {}
    depth = 1
    yield from reader.expect("{")
    while True:
        yield from reader.skip_blank()
        key = yield from _string(reader)
        yield from reader.skip_blank()
        yield from reader.expect(":")
        following = yield from reader.skip_blank()
        if key in ARGUMENT_KEYS:
            name = next((names[each] for each in NAME_KEYS if names.get(each)), None)
            if name is None or following != "{":
                raise Malformed("these arguments are told when they are whole")
            return _Head(name, depth)
        if key == "function" and following == "{":
            reader.take(1)
            names.clear()
            depth += 1
            continue
        if following == '"':
            value = yield from _string(reader)
            names |= {key: value} if key in NAME_KEYS else {}
        else:
            yield from reader.word("+-.")
        yield from reader.skip_blank()
        yield from reader.expect(",")


def _behind(reader: Reader, depth: int) -> Steps[None]:
    """Take what stands behind the arguments of a call that is whole, as far as it is JSON."""
    while depth:
        following = yield from reader.skip_blank()
        place = reader.place()
        if following == "}":
            reader.take(1)
            depth -= 1
        elif following == ",":
            try:
                yield from _member(reader)
            except Malformed:
                reader.back(place)
                return
        else:
            return


def _member(reader: Reader) -> Steps[None]:
    yield from reader.expect(",")
    yield from reader.skip_blank()
    yield from _string(reader)
    yield from reader.skip_blank()
    yield from reader.expect(":")
    following = yield from reader.skip_blank()
    if following == '"':
        yield from _string(reader)
    elif following and following in "{[":
        yield from reader.json()
    else:
        yield from reader.word("+-.")


def _string(reader: Reader) -> Steps[str]:
    """Take a string of JSON; returns what it says."""
    text = yield from reader.json_string()
    try:
        said = json.loads(text, strict=False)
    except ValueError as ex:
        raise Malformed(f"this is no JSON: {ex}") from ex
    assert isinstance(said, str), "it stands in quotes"
    return said
