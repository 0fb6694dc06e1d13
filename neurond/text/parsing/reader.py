"""Reading text that comes in pieces as if it were there whole. Pure.

A parser is a generator. Where it needs more text than there is, its reader yields; the text has
grown when it is resumed. What a method takes and returns depends on the text alone, never on how it
was cut into pieces.
"""

import re
from collections.abc import Collection, Generator
from typing import Final, NamedTuple, TypeVar

from neurond.text.parsing.segments import MAX_DEPTH, Malformed

T = TypeVar("T")
Steps = Generator[None, None, T]
_BLANK: Final = " \t\r\n"
_OUTSIDE: Final = re.compile(r"[^\s\w.+:,-]")
"""What changes the state of JSON outside of strings, or cannot stand there."""
_INSIDE: Final = re.compile(r'["\\]')
_KEPT_TOGETHER_CHARS: Final = 4096
"""Once or twice so much is copied at each token, while a call goes on that may yet be text; stop
strings are looked for at the end of it."""


class Split(NamedTuple):
    """`before` is certain to be no part of a marker."""

    before: str
    marker: str | None


class Markers:
    """Texts that are looked for. None may contain another one: the first that is whole is meant."""

    def __init__(self, texts: Collection[str]) -> None:
        self.texts = frozenset(texts)
        self._pattern = re.compile("|".join(re.escape(text) for text in self.texts) or r"(?!)")
        self._begins = {text[:end] for text in self.texts for end in range(1, len(text))}
        self._longest = max((len(text) for text in self.texts), default=0)

    def split(self, text: str, *, ended: bool) -> Split:
        """Return what stands before the first marker, or before what may become one."""
        found = self._pattern.search(text)
        if found is not None:
            return Split(text[: found.start()], found.group())
        if not ended:
            for start in range(max(0, len(text) - self._longest + 1), len(text)):
                if text[start:] in self._begins:
                    return Split(text[:start], None)
        return Split(text, None)


class Reader:
    """The text of one answer. From a `mark` on it is kept, so that it can be had again."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._mark: int | None = None
        self._before: list[str] = []
        """What was taken since the mark and is no more in `_text`, where that would grow long."""
        self._before_chars = 0
        self.fed_chars = 0
        """Characters of the whole text, as far as it has come."""
        self.ended = False

    def feed(self, text: str) -> None:
        """Take in more text."""
        self.fed_chars += len(text)
        keep = self._at if self._mark is None else self._mark
        if self._at - keep > 2 * _KEPT_TOGETHER_CHARS:
            end = self._at - _KEPT_TOGETHER_CHARS
            self._before.append(self._text[keep:end])
            self._before_chars += end - keep
            keep = end
        self._text = self._text[keep:] + text
        self._at -= keep
        if self._mark is not None:
            self._mark = 0

    def end(self) -> None:
        """Nothing follows."""
        self.ended = True

    @property
    def rest(self) -> str:
        """What has come and was not taken."""
        return self._text[self._at :]

    @property
    def taken_chars(self) -> int:
        """Those of them that were taken."""
        return self.fed_chars - (len(self._text) - self._at)

    @property
    def is_marked(self) -> bool:
        return self._mark is not None

    @property
    def held_chars(self) -> int:
        """Characters that have come since the mark; 0 where there is none."""
        if self._mark is None:
            return 0
        return self._before_chars + len(self._text) - self._mark

    def held(self, place: int) -> str:
        """Return what has come since a place; see `place`."""
        at = self._index(place)  # may put other text there
        return self._text[at:]

    def mark(self) -> None:
        self._mark = self._at
        self._forget()

    def unmark(self) -> str:
        """Return the text since the mark, and forget the mark."""
        assert self._mark is not None, "there is no mark"
        text = "".join(self._before) + self._text[self._mark : self._at]
        self._mark = None
        self._forget()
        return text

    def place(self) -> int:
        """Return where the reader is, for `back`, as long as the mark stays."""
        assert self._mark is not None, "what is read may have to be given back"
        return self._before_chars + self._at - self._mark

    def back(self, place: int) -> None:
        """Go back to what `place` returned, under the same mark."""
        self._at = self._index(place)

    def take(self, length: int) -> str:
        """Take so many characters, which have come."""
        text = self._text[self._at : self._at + length]
        self._at += length
        return text

    def take_match(self, pattern: re.Pattern[str]) -> str:
        """Take what `pattern` matches here of what has come; it may match nothing."""
        found = pattern.match(self._text, self._at)
        return self.take(len(found.group())) if found is not None else ""

    def more(self) -> Steps[None]:
        """Wait for more text.

        Raises:
            Malformed: there is none.
        """
        if self.ended:
            raise Malformed("the text ends")
        yield

    def peek(self) -> Steps[str]:
        """Return the next character without taking it; empty at the end of the text."""
        while self._at >= len(self._text):
            if self.ended:
                return ""
            yield
        return self._text[self._at]

    def skip_blank(self, characters: str = _BLANK) -> Steps[str]:
        """Take blanks; returns the character behind them without taking it, empty at the end."""
        while (character := (yield from self.peek())) and character in characters:
            self._at += 1
        return character

    def try_take(self, *options: str) -> Steps[str | None]:
        """Take the one of `options` that stands here, if one does; none may begin with another."""
        while True:
            rest = self._text[self._at : self._at + max(map(len, options))]
            for option in options:
                if rest.startswith(option):
                    self._at += len(option)
                    return option
            if self.ended or not any(option.startswith(rest) for option in options):
                return None
            yield

    def expect(self, *options: str) -> Steps[str]:
        """Take one of `options`.

        Raises:
            Malformed: none stands here.
        """
        taken = yield from self.try_take(*options)
        if taken is None:
            raise Malformed(f"expected {' or '.join(options)}")
        return taken

    def until(self, *ends: str) -> Steps[str]:
        """Take the text before the first of `ends`, and that end too; returns the former.

        Raises:
            Malformed: the text ends first.
        """
        markers = Markers(ends)
        pieces: list[str] = []
        while True:
            before, marker = markers.split(self.rest, ended=self.ended)
            pieces.append(self.take(len(before)))
            if marker is not None:
                self.take(len(marker))
                return "".join(pieces)
            yield from self.more()

    def word(self, others: str = "") -> Steps[str]:
        """Take letters, digits, underscores and `others` as long as they go on."""
        taken: list[str] = []
        while (character := (yield from self.peek())) and (
            character.isalnum() or character == "_" or character in others
        ):
            taken.append(character)
            self._at += 1
        return "".join(taken)

    def json(self) -> Steps[str]:
        """Take an object or array of JSON, as far as brackets and strings tell.

        Raises:
            Malformed: there is none.
        """
        if (yield from self.skip_blank()) not in ("{", "["):
            raise Malformed("expected JSON")
        start = self.place()
        closing: list[str] = []
        while True:
            character = yield from self._find(_OUTSIDE)
            self._at += 1
            if character == '"':
                yield from self._json_string()
            elif character in "{[":
                closing.append("}" if character == "{" else "]")
                if len(closing) > MAX_DEPTH:
                    raise Malformed("it nests too deeply")
            elif character != closing.pop():
                raise Malformed("this is no JSON")
            elif not closing:
                end = self.place()
                self.back(start)
                return self.take(end - start)

    def json_string(self) -> Steps[str]:
        """Take a string of JSON, quotes and all, as far as quotes and backslashes tell.

        Raises:
            Malformed: there is none.
        """
        start = self.place()
        yield from self.expect('"')
        yield from self._json_string()
        end = self.place()
        self.back(start)
        return self.take(end - start)

    def drop_rest(self) -> Steps[None]:
        """Take all that comes."""
        while not self.ended:
            self._at = len(self._text)
            self._mark = None
            self._forget()
            yield
        self._at = len(self._text)

    def _index(self, place: int) -> int:
        """Return where in `_text` a place is, having all of the text there if need be."""
        assert self._mark is not None, "the place is counted from the mark"
        if place < self._before_chars:
            self._text = "".join(self._before) + self._text[self._mark :]
            self._at += self._before_chars - self._mark
            self._mark = 0
            self._forget()
        return self._mark + place - self._before_chars

    def _forget(self) -> None:
        if self._before:
            self._before = []
            self._before_chars = 0

    def _json_string(self) -> Steps[None]:
        while True:
            character = yield from self._find(_INSIDE)
            self._at += 1
            if character == '"':
                return
            if not (yield from self.peek()):
                raise Malformed("the text ends")
            self._at += 1

    def _find(self, pattern: re.Pattern[str]) -> Steps[str]:
        while True:
            found = pattern.search(self._text, self._at)
            if found is not None:
                self._at = found.start()
                return found.group()
            self._at = len(self._text)
            yield from self.more()
