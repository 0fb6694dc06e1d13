"""Calls that are written as in Python, and objects in Gemma's notation. Pure.

Read character by character rather than by `ast`, which is not safe from what nests deeply and
needs the end before it can tell whether the beginning is a call at all.
"""

import math
from typing import Any, Final, NamedTuple

from neurond.text.parsing.call_sink import CallSink, call_of
from neurond.text.parsing.reader import Reader, Steps
from neurond.text.parsing.segments import MAX_DEPTH, Call, Malformed, Tools

_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "\n": ""}
_CODES: Final = {"x": 2, "u": 4, "U": 8}
_WORDS: Final = {
    "True": True,
    "False": False,
    "None": None,
    "true": True,
    "false": False,
    "null": None,
}


class Notation(NamedTuple):
    """How values are written. `quotes` stand around strings as they are, without escapes."""

    quotes: tuple[str, ...] = ()
    bare_keys: bool = False


PYTHON: Final = Notation()


def python_calls(reader: Reader, tools: Tools, sink: CallSink) -> Steps[None]:
    """Read `name(key=value, …)`, or a list of such. Only tools that there are can be called.

    Raises:
        Malformed: something else stands here.
    """
    yield from reader.skip_blank()
    is_list = (yield from reader.try_take("[")) is not None
    while True:
        yield from reader.skip_blank()
        sink.whole((yield from _python_call(reader, tools)))
        if not is_list:
            return
        yield from reader.skip_blank()
        if (yield from reader.expect(",", "]")) == "]":
            reader.mark()  # what follows may be no call, and is given back without this
            return


def _python_call(reader: Reader, tools: Tools) -> Steps[Call]:
    name = yield from reader.word(".-")
    if name == "print" and name not in tools:
        # Gemma's prompt shows calls so.
        yield from reader.expect("(")
        yield from reader.skip_blank()
        call = yield from _python_call(reader, tools)
        yield from reader.skip_blank()
        yield from reader.expect(")")
        return call
    if name not in tools:
        raise Malformed(f"there is no tool {name!r}")
    yield from reader.expect("(")
    arguments: dict[str, Any] = {}
    while (yield from reader.skip_blank()) != ")":
        key = yield from reader.word()
        yield from reader.skip_blank()
        yield from reader.expect("=")
        arguments[key] = yield from read_value(reader, PYTHON)
        if (yield from reader.skip_blank()) != ")":
            yield from reader.expect(",")
    reader.take(1)
    return call_of(name, arguments)


def read_value(reader: Reader, notation: Notation, depth: int = 0) -> Steps[Any]:
    """Read a literal: text, number, truth, none, list, tuple or dictionary.

    Raises:
        Malformed: something else stands here.
    """
    if depth > MAX_DEPTH:
        raise Malformed("it nests too deeply")
    character = yield from reader.skip_blank()
    if notation.quotes and (quote := (yield from reader.try_take(*notation.quotes))) is not None:
        return (yield from reader.until(quote))
    if character in ("'", '"'):
        return (yield from _text(reader))
    if character in ("[", "("):
        reader.take(1)
        return (yield from _list(reader, notation, "]" if character == "[" else ")", depth))
    if character == "{":
        return (yield from read_object(reader, notation, depth))
    return _scalar((yield from reader.word("+-.")))


def read_object(reader: Reader, notation: Notation, depth: int = 0) -> Steps[dict[str, Any]]:
    """Read a dictionary whose keys are texts.

    Raises:
        Malformed: something else stands here.
    """
    yield from reader.expect("{")
    value: dict[str, Any] = {}
    while (yield from reader.skip_blank()) != "}":
        key = yield from read_key(reader, notation, depth)
        yield from reader.skip_blank()
        yield from reader.expect(":")
        value[key] = yield from read_value(reader, notation, depth + 1)
        if (yield from reader.skip_blank()) != "}":
            yield from reader.expect(",")
    reader.take(1)
    return value


def read_key(reader: Reader, notation: Notation, depth: int = 0) -> Steps[str]:
    """Read the key of a dictionary.

    Raises:
        Malformed: something else stands here.
    """
    if notation.bare_keys and (yield from reader.peek()) not in ("'", '"', "<"):
        key: Any = yield from reader.word("-.$")
    else:
        key = yield from read_value(reader, notation, depth + 1)
    if not isinstance(key, str) or not key:
        raise Malformed("a key that is no text")
    return key


def _list(reader: Reader, notation: Notation, closes: str, depth: int) -> Steps[list[Any]]:
    values: list[Any] = []
    while (yield from reader.skip_blank()) != closes:
        values.append((yield from read_value(reader, notation, depth + 1)))
        if (yield from reader.skip_blank()) != closes:
            yield from reader.expect(",")
    reader.take(1)
    return values


def _text(reader: Reader) -> Steps[str]:
    quote = reader.take(1)
    if (yield from reader.peek()) == quote:
        reader.take(1)
        if (yield from reader.peek()) != quote:
            return ""
        reader.take(1)
        quote = quote * 3
    pieces: list[str] = []
    while (yield from reader.try_take(quote)) is None:
        character = yield from _required(reader)
        pieces.append((yield from _escape(reader)) if character == "\\" else character)
    text = "".join(pieces)
    try:
        # JSON writes characters beyond 16 bits as two escapes.
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise Malformed("half a character") from None


def _escape(reader: Reader) -> Steps[str]:
    character = yield from _required(reader)
    if character in _CODES:
        digits = ""
        for _ in range(_CODES[character]):
            digits += yield from _required(reader)
        try:
            return chr(int(digits, 16))
        except (ValueError, OverflowError):
            raise Malformed(f"\\{character}{digits} is no character") from None
    if character in ("'", '"', "\\", "/"):
        return character
    return _ESCAPES.get(character, f"\\{character}")


def _required(reader: Reader) -> Steps[str]:
    if not (yield from reader.peek()):
        raise Malformed("the text ends")
    return reader.take(1)


def _scalar(word: str) -> Any:
    if word in _WORDS:
        return _WORDS[word]
    try:
        number = int(word) if word.lstrip("+-").isdigit() else float(word)
    except ValueError:
        raise Malformed(f"{word!r} is no value") from None
    if isinstance(number, float) and not math.isfinite(number):
        raise Malformed(f"{word!r} is no number that JSON has")
    return number
