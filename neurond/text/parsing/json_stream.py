"""An object of JSON that is told while it is being read. Pure.

What was told is at any time the beginning of an object that every reader of JSON takes. Models
write JSON with slips that leave no doubt; these are mended on the way: line ends and other control
characters within strings, escapes that JSON has not, half of a surrogate pair, a comma too many,
Python's words for true, false and null.
"""

import json
import re
from collections.abc import Callable
from typing import Final

from neurond.text.parsing.reader import Reader, Steps
from neurond.text.parsing.segments import MAX_DEPTH, Malformed

_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f]*')
_BLANK: Final = re.compile(r"[ \t\r\n]*")
_SCALAR: Final = re.compile(r"[\w.+-]*")
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS: Final = {
    "true": "true",
    "false": "false",
    "null": "null",
    "True": "true",
    "False": "false",
    "None": "null",
}
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_UNKNOWN: Final = "\\ufffd"


def told_object(reader: Reader, more: Callable[[str], None]) -> Steps[None]:
    """Take an object of JSON; `more` is given each piece of it as soon as that is certain.

    Told are at most a scalar, an escape, or a comma with the blanks around it later than they have
    come.

    Raises:
        Malformed: what follows what was told is no JSON.
    """
    yield from reader.expect("{")
    more("{")
    yield from _Object(reader, more).rest()


class _Object:
    """Reads behind the opening bracket."""

    def __init__(self, reader: Reader, more: Callable[[str], None]) -> None:
        self._reader = reader
        self._more = more
        self._closing = ["}"]
        self._gap = ""
        """What stands before the next token and was not told."""

    def rest(self) -> Steps[None]:
        yield from self._after_opening()
        while self._closing:
            self._gap = yield from _blanks(self._reader)
            following = yield from self._reader.peek()
            if following == ",":
                comma = self._gap + self._reader.take(1)
                blanks = yield from _blanks(self._reader)
                if (yield from self._reader.peek()) == self._closing[-1]:
                    self._gap = blanks
                    self._close()
                else:
                    self._gap = comma + blanks
                    yield from self._member()
            elif following == self._closing[-1]:
                self._close()
            else:
                raise Malformed("this is no JSON")

    def _after_opening(self) -> Steps[None]:
        self._gap = yield from _blanks(self._reader)
        if (yield from self._reader.peek()) == self._closing[-1]:
            self._close()
        else:
            yield from self._member()

    def _member(self) -> Steps[None]:
        """Read a key with its value, or an item of an array."""
        if self._closing[-1] == "}":
            if (yield from self._reader.peek()) != '"':
                raise Malformed("a key is a text")
            yield from self._string()
            self._gap = yield from _blanks(self._reader)
            self._tell((yield from self._reader.expect(":")))
            self._gap = yield from _blanks(self._reader)
        yield from self._value()

    def _value(self) -> Steps[None]:
        first = yield from self._reader.peek()
        if first == '"':
            yield from self._string()
        elif first in ("{", "["):
            self._closing.append("}" if first == "{" else "]")
            if len(self._closing) > MAX_DEPTH:
                raise Malformed("it nests too deeply")
            self._tell(self._reader.take(1))
            yield from self._after_opening()
        else:
            self._tell(_scalar((yield from _run(self._reader, _SCALAR))))

    def _close(self) -> None:
        self._tell(self._reader.take(1))
        self._closing.pop()

    def _tell(self, text: str) -> None:
        self._more(self._gap + text)
        self._gap = ""

    def _string(self) -> Steps[None]:
        self._tell(self._reader.take(1))
        while True:
            self._tell(self._reader.take_match(_PLAIN))
            character = yield from _next(self._reader)
            if character == "\\":
                self._tell((yield from _escape(self._reader)))
                continue
            self._reader.take(1)
            if character == '"':
                self._tell(character)
                return
            if character < " ":
                self._tell(json.dumps(character)[1:-1])
            else:
                self._tell(character)


def _blanks(reader: Reader) -> Steps[str]:
    return (yield from _run(reader, _BLANK))


def _run(reader: Reader, pattern: re.Pattern[str]) -> Steps[str]:
    """Take what a pattern of single characters matches, as far as it goes on."""
    pieces: list[str] = []
    while True:
        pieces.append(reader.take_match(pattern))
        if reader.rest:
            return "".join(pieces)
        yield from reader.more()


def _next(reader: Reader) -> Steps[str]:
    character = yield from reader.peek()
    if not character:
        raise Malformed("the text ends")
    return character


def _scalar(word: str) -> str:
    if word in _WORDS:
        return _WORDS[word]
    if _NUMBER.fullmatch(word) is None:
        raise Malformed(f"{word!r} is no value")
    return word


def _escape(reader: Reader) -> Steps[str]:
    reader.take(1)
    character = yield from _next(reader)
    if character == "u":
        return (yield from _unicode(reader))
    if character in '"\\/bfnrt':
        return "\\" + reader.take(1)
    # Not one that JSON has: the backslash was meant.
    return reader.take(1) if character == "'" else "\\\\"


def _unicode(reader: Reader) -> Steps[str]:
    """Take an escape by number, without its backslash, and the one that makes a pair with it."""
    digits = yield from _digits(reader)
    if len(digits) < 4:
        return f"\\\\u{digits}"
    if not 0xD800 <= int(digits, 16) < 0xE000:
        return f"\\u{digits}"
    if int(digits, 16) >= 0xDC00:
        return _UNKNOWN
    place = reader.place()
    if (yield from _next(reader)) == "\\":
        reader.take(1)
        if (yield from _next(reader)) == "u":
            second = yield from _digits(reader)
            if len(second) == 4 and 0xDC00 <= int(second, 16) < 0xE000:
                return f"\\u{digits}\\u{second}"
    reader.back(place)
    return _UNKNOWN


def _digits(reader: Reader) -> Steps[str]:
    """Take `u` and up to four digits behind it; returns the digits."""
    reader.take(1)
    digits = ""
    while len(digits) < 4 and (yield from _next(reader)) in _HEX:
        digits += reader.take(1)
    return digits
