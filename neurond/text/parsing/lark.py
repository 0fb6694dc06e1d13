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
from neurond.text.parsing.schemas import arguments_of, arguments_schema, call_schema, is_closed

WHITESPACE: Final = r"[ \t\n\r]{1,24}"
"""Between the tokens of JSON; without a bound small models fill the context with blanks."""
ANYTHING: Final = r"/(.|\n)*/"
BLANKS: Final = r"/[ \n]{0,2}/"
"""Next to a marker."""

MAX_REQUIRED: Final = 4
"""Parts in any order that are waited for: a grammar has a rule for each set of them."""
_JSON_BLANKS: Final = r"/[ \t\n\r]{0,24}/"

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
        any_order: arguments may come in any order where a schema names them all. llguidance's own
            JSON has them in the schema's, and what a model has passed over could not follow.
    """

    def __init__(
        self,
        special: Mapping[str, int | None],
        *,
        as_json: bool = False,
        any_order: bool = False,
    ) -> None:
        self._as_json = as_json
        self._any_order = any_order
        self._special = special
        self._rules: dict[tuple[str, str], str] = {}  # kind and what stands behind the name
        self._pattern = re.compile("|".join(re.escape(text) for text in special) or r"(?!)")

    def grammar(self, start: str) -> str:
        """Return all rules made so far as a grammar that begins with `start`."""
        rules = [f"{name}{rest}" for (_, rest), name in self._rules.items()]
        return "\n".join([HEAD, f"start: {start}", *rules]) + "\n"

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
        """Add a rule, if there is none like it; returns its name."""
        return self._named("rule", f"{attributes}: {body}")

    def terminal(self, body: str) -> str:
        """Add a terminal, of which regexes can be intersected and negated; returns its name."""
        return self._named("TERMINAL", f": {body}")

    def _named(self, kind: str, rest: str) -> str:
        return self._rules.setdefault((kind, rest), f"{kind}_{len(self._rules)}")

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
        arguments = arguments_of(tool) if self._any_order and is_closed(tool) else None
        if arguments is None:
            return self.json(arguments_schema(tool), strict=tool.strict)
        blanks = self.rule(_JSON_BLANKS)
        parts: list[tuple[str, bool]] = []
        for argument in arguments:
            value = self.json(argument.schema, strict=tool.strict)
            pair = f'{_json_text(argument.key)} {blanks} ":" {blanks} {value}'
            parts.append((self.rule(f"{blanks} {pair} {blanks}"), argument.required))
        nothing = "" if any(argument.required for argument in arguments) else f"| {blanks}"
        return self.rule(f'"{{" ({self.parts(parts, ",")} {nothing}) "}}"')

    def named_object(self, tool: Tool, key: str = "arguments") -> str:
        """Return an expression of a call as `{"name": …, "arguments": {…}}`."""
        if self._any_order:
            blanks = self.rule(_JSON_BLANKS)
            name, found = f"{_json_text('name')} {blanks}", f"{_json_text(key)} {blanks}"
            pairs = f'{name} ":" {blanks} {_json_text(tool.name)} {blanks} "," {blanks} {found} ":"'
            return self.rule(f'"{{" {blanks} {pairs} {blanks} {self.arguments(tool)} {blanks} "}}"')
        if self._as_json:
            return self.json(call_schema(tool, key), strict=tool.strict)
        head = f'{{"name": {json.dumps(tool.name, ensure_ascii=False)}, "{key}": '
        return f'{self.text(head)} {self.arguments(tool)} "}}"'

    def parts(self, parts: Sequence[tuple[str, bool]], between: str) -> str:
        """Return an expression of parts, those left out that are not required.

        They come in their order or, with `any_order`, in any: then those that are not required may
        come again, and of the required ones the first `MAX_REQUIRED` are told from others.

        Args:
            parts: expressions, and whether each is required.
            between: text between two parts that are there.
        """
        return (_any_order if self._any_order else _sequence)(self, parts, between)

    def any_of(self, expressions: Sequence[str]) -> str:
        """Return an expression of any one of `expressions`."""
        return self.rule(" | ".join(expressions))

    def list_of(self, one: str, *, several: bool, between: str = ", ") -> str:
        """Return an expression of one or, where `several` are wanted, more."""
        return f"{one} ({self.text(between)} {one})*" if several else one


def _sequence(lark: Lark, parts: Sequence[tuple[str, bool]], between: str) -> str:
    first, behind = '""', '""'
    for expression, required in reversed(parts):
        follows = f"{lark.text(between)} {expression} {behind}" if between else ""
        follows = follows or f"{expression} {behind}"
        begins = f"{expression} {behind}"
        first = lark.rule(begins if required else f"{begins} | {first}")
        behind = lark.rule(follows if required else f"{follows} | {behind}")
    return first


def _any_order(lark: Lark, parts: Sequence[tuple[str, bool]], between: str) -> str:
    """A rule says what may follow for each set of required parts that were there."""
    gap = lark.text(between) if between else ""
    required = [expression for expression, is_required in parts if is_required]
    others = [expression for expression, is_required in parts if not is_required]
    others += required[MAX_REQUIRED:]
    del required[MAX_REQUIRED:]
    other = lark.rule(" | ".join(others)) if others else None
    whole = (1 << len(required)) - 1
    more = f"({gap} {other})*" if other else ""
    behind = {whole: lark.rule(more or '""')}
    for there in reversed(range(whole)):
        missing = [each for each in range(len(required)) if not there >> each & 1]
        nexts = [f"{gap} {required[each]} {behind[there | 1 << each]}" for each in missing]
        behind[there] = lark.rule(f"{more} ({' | '.join(nexts)})")
    begins = [f"{each} {behind[1 << index]}" for index, each in enumerate(required)]
    if other:
        begins.append(f"{other} {behind[0]}")
    return lark.rule(" | ".join(begins if required else [*begins, '""']))


def _json_text(text: str) -> str:
    """Return an expression of a string of JSON."""
    return _quoted(json.dumps(text, ensure_ascii=False))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""
