"""Grammars of calls, in Lark's notation as llguidance reads it. Pure.

A marker that is a token of its own is written as that token, `<[7]>`: its text does not match it.
For the process that only tries a grammar out, which has no such tokens, it is text after all.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from cortex_core.canonical import JsonObject, Tool
from neurond.text.parsing.schemas import arguments_schema, call_schema

WHITESPACE: Final = r"[ \t\n\r]{1,24}"
"""Between the tokens of JSON; without a bound small models fill the context with blanks."""
ANYTHING: Final = r"/(.|\n)*/"
BLANKS: Final = r"/[ \n]{0,2}/"
"""Next to a marker."""

HEAD: Final = '%llguidance {"no_forcing": true}'
"""llguidance would offer a marker's token also where the grammar has its text, then refuse it."""


class Written(NamedTuple):
    """How a format writes calls: `opens` is text that nothing but a call begins with."""

    opens: str
    rest: str
    """What follows it, as an expression: one call, or all of them."""
    between: str | None = None
    """Text between two of these; None where `rest` has all calls."""
    bare: str | None = None
    """Calls without `opens` at the beginning of an answer, as an expression; None where there are
    none."""


class Lark:
    """A grammar that is being written.

    Args:
        special: the markers that are tokens of their own, with their ids; None is for a grammar
            that is only tried out.
        as_json: calls that are objects of JSON are written with blanks wherever JSON has them. Text
            of several of JSON's tokens would forbid any other JSON that begins as it does.
    """

    def __init__(self, special: Mapping[str, int | None], *, as_json: bool = False) -> None:
        self._as_json = as_json
        self._special = special
        self._rules: list[str] = []
        self._pattern = re.compile("|".join(re.escape(text) for text in special) or r"(?!)")

    def grammar(self, start: str) -> str:
        """Return all rules made so far as a grammar that begins with `start`."""
        return "\n".join([HEAD, f"start: {start}", *self._rules]) + "\n"

    def text(self, text: str) -> str:
        """Return an expression of a text, markers and all; it is not empty where the text is."""
        symbols: list[str] = []
        at = 0
        for marker in self._pattern.finditer(text):
            token = self._special[marker.group()]
            symbols.append(_quoted(text[at : marker.start()]))
            symbols.append(_quoted(marker.group()) if token is None else f"<[{token}]>")
            at = marker.end()
        symbols.append(_quoted(text[at:]))
        return " ".join(symbol for symbol in symbols if symbol) or '""'

    def is_special(self, marker: str) -> bool:
        """Whether a marker is a token of its own."""
        return marker in self._special

    def rule(self, body: str, *, attributes: str = "") -> str:
        """Add a rule; returns its name."""
        name = f"rule_{len(self._rules)}"
        self._rules.append(f"{name}{attributes}: {body}")
        return name

    def terminal(self, body: str) -> str:
        """Add a terminal, of which regexes can be intersected and negated; returns its name."""
        name = f"TERMINAL_{len(self._rules)}"
        self._rules.append(f"{name}: {body}")
        return name

    def up_to(self, end: str) -> str:
        """Return an expression of any text up to `end`, and that."""
        if end.startswith(tuple(self._special)):
            return f"{self.rule(ANYTHING)} {self.text(end)}"
        return self.rule(f"{ANYTHING} {_quoted(end)}", attributes="[lazy]")

    def json(self, schema: JsonObject, *, strict: bool) -> str:
        """Return an expression of what is an instance of a schema."""
        options = {"whitespace_pattern": WHITESPACE, "lenient": not strict}
        text = msgspec.json.encode({**schema, "x-guidance": options}).decode()
        return self.rule(f"%json {text}")

    def arguments(self, tool: Tool) -> str:
        """Return an expression of a tool's arguments as an object of JSON."""
        return self.json(arguments_schema(tool), strict=tool.strict)

    def named_object(self, tool: Tool, key: str = "arguments") -> str:
        """Return an expression of a call as `{"name": …, "arguments": {…}}`."""
        if self._as_json:
            return self.json(call_schema(tool, key), strict=tool.strict)
        head = f'{{"name": {json.dumps(tool.name, ensure_ascii=False)}, "{key}": '
        return f'{self.text(head)} {self.arguments(tool)} "}}"'

    def any_of(self, expressions: Sequence[str]) -> str:
        """Return an expression of any one of `expressions`."""
        return self.rule(" | ".join(expressions))

    def list_of(self, one: str, *, several: bool, between: str = ", ") -> str:
        """Return an expression of one or, where `several` are wanted, more."""
        return f"{one} ({self.text(between)} {one})*" if several else one


def sequence(lark: Lark, parts: Sequence[tuple[str, bool]], between: str) -> str:
    """Return an expression of parts in their order, those left out that are not required.

    Args:
        lark: gets the rules.
        parts: expressions, and whether each is required.
        between: text between two parts that are there.
    """
    first, behind = '""', '""'
    for expression, required in reversed(parts):
        follows = f"{lark.text(between)} {expression} {behind}" if between else ""
        follows = follows or f"{expression} {behind}"
        begins = f"{expression} {behind}"
        first = lark.rule(begins if required else f"{begins} | {first}")
        behind = lark.rule(follows if required else f"{follows} | {behind}")
    return first


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""
