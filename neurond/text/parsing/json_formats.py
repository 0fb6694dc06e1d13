"""The formats whose calls are JSON behind a marker. Pure.

Sources: the chat templates of Hermes 2 Pro, Qwen 2.5 and 3, Granite, Phi 4 mini and SmolLM; Llama's
prompt formats (llama.com/docs/model-cards-and-prompt-formats); mistral-common's tokenizers v1 to
v13; the chat templates of DeepSeek V3, V3.1, R1 and Kimi K2.
"""
# ruff: noqa: RUF001 - DeepSeek's markers have bars of full width

import json
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from cortex_core.canonical import Tool
from neurond.text.parsing.call_sink import CallSink
from neurond.text.parsing.json_calls import json_calls, told_call
from neurond.text.parsing.json_text import looks_like_call
from neurond.text.parsing.lark import BLANKS, Lark, Written
from neurond.text.parsing.python_text import python_calls
from neurond.text.parsing.reader import Reader, Steps
from neurond.text.parsing.segments import Tools

_BETWEEN: Final = " \t\r\n;,"
_TOO_MANY: Final = " \t\r\n}]"
_FENCE: Final = "```"
_NUMBERED: Final = re.compile(r"^(?:functions\.)?(.*?)(?::\d+)?$", re.DOTALL)


class SpeltCall(NamedTuple):
    """A call of an earlier turn."""

    name: str
    arguments: Any
    """An object, or the text of what is none."""


class JsonFormat(NamedTuple):
    """Objects, or an array of them, between two markers or without any.

    A call that has no marker, or one of `loose`, must name a tool that there is, or it is text.
    """

    opens: tuple[str, ...]
    closes: tuple[str, ...] = ()
    loose: frozenset[str] = frozenset()
    bare: str = ""
    each: tuple[str, str] = ("", "")
    """What a model that is held to the format writes around each call."""
    all: tuple[str, str] = ("", "")
    """What it writes around all of them."""
    between: str = ", "
    key: str = "arguments"

    @property
    def openers(self) -> tuple[str, ...]:
        """See `CallFormat.openers`."""
        return self.opens

    @property
    def markers(self) -> frozenset[str]:
        """See `CallFormat.markers`."""
        return frozenset((*self.opens, *self.closes))

    def read(self, opener: str | None, reader: Reader, tools: Tools, sink: CallSink) -> Steps[None]:
        """See `CallFormat.read`."""
        is_loose = opener is None or opener in self.loose
        # A grammar holds calls at the beginning, but not in blocks of code, which are prose too.
        callable_here = tools if opener is None else tools.unheld
        known = callable_here if is_loose else None
        fenced = not is_loose and (yield from _takes_fence(reader))
        while True:
            if is_loose and (yield from _is_python(reader)):
                yield from python_calls(reader, callable_here, sink)
            else:
                if is_loose:
                    yield from reader.skip_blank()
                    yield from looks_like_call(reader)
                yield from json_calls(reader, known, sink)
            following = yield from reader.skip_blank(_BETWEEN)
            if not following or not (following in "{[" or (is_loose and _begins_name(following))):
                break
            if opener is not None:
                sink.expect(held=False)  # a grammar would have had the marker again, or a bracket
        if opener is None:
            yield from self._take_closer(reader)
        else:
            yield from self._end(reader, fenced=fenced)

    def _end(self, reader: Reader, *, fenced: bool) -> Steps[None]:
        """Take what closes calls, and brackets too many before it."""
        place = reader.place()
        yield from reader.skip_blank(_TOO_MANY)
        if fenced and (yield from reader.try_take(_FENCE)) is not None:
            yield from reader.skip_blank()
            place = reader.place()
        if (yield from self._take_closer(reader)) is None:
            reader.back(place)

    def _take_closer(self, reader: Reader) -> Steps[str | None]:
        return (yield from reader.try_take(*self.closes)) if self.closes else None

    def written(self, lark: Lark, tools: Sequence[Tool], *, several: bool) -> Written:
        """See `CallFormat.written`."""
        one = lark.any_of([lark.named_object(tool, self.key) for tool in tools])
        begins, ends = self.each
        if begins:
            bare = lark.list_of(one, several=several, between=self.between)
            return Written(
                begins,
                f"{one} {lark.rule(BLANKS)} {lark.text(ends.strip())}",
                self.between,
                f"{bare} ({lark.text(ends)})?" if self.bare else None,
            )
        begins, ends = self.all
        calls = lark.list_of(one, several=several, between=self.between)
        return Written(begins, f"{calls} {lark.text(ends)}")

    def spelt(self, calls: Sequence[SpeltCall]) -> str:
        """Return calls as a model writes them that is held to the format."""
        objects = [
            f"{self.each[0]}{_json({'name': call.name, self.key: call.arguments})}{self.each[1]}"
            for call in calls
        ]
        return f"{self.all[0]}{self.between.join(objects)}{self.all[1]}"


class GenericFormat(NamedTuple):
    """Objects as described to a model whose template knows no tools, or sections, its own habit.

    DeepSeek V3's and R1's templates have the markers of sections and are not told of tools.
    """

    objects: JsonFormat
    sections: "SectionFormat"

    @property
    def bare(self) -> str:
        """See `CallFormat.bare`."""
        return self.objects.bare

    @property
    def openers(self) -> tuple[str, ...]:
        """See `CallFormat.openers`."""
        return (*self.objects.openers, *self.sections.openers)

    @property
    def markers(self) -> frozenset[str]:
        """See `CallFormat.markers`."""
        return self.objects.markers | self.sections.markers

    def read(self, opener: str | None, reader: Reader, tools: Tools, sink: CallSink) -> Steps[None]:
        """See `CallFormat.read`."""
        written = self.sections if opener in self.sections.openers else self.objects
        yield from written.read(opener, reader, tools, sink)

    def written(self, lark: Lark, tools: Sequence[Tool], *, several: bool) -> Written:
        """See `CallFormat.written`."""
        return self.objects.written(lark, tools, several=several)


class MistralFormat(NamedTuple):
    """An array behind one marker, or from tokenizer v11 on a name and its object behind each."""

    bare: str = ""

    @property
    def openers(self) -> tuple[str, ...]:
        """See `CallFormat.openers`."""
        return ("[TOOL_CALLS]",)

    @property
    def markers(self) -> frozenset[str]:
        """See `CallFormat.markers`."""
        return frozenset({"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"})

    def read(
        self, _opener: str | None, reader: Reader, _tools: Tools, sink: CallSink
    ) -> Steps[None]:
        """See `CallFormat.read`."""
        if (yield from reader.skip_blank()) in ("[", "{"):
            yield from json_calls(reader, None, sink)
            return
        name = yield from reader.word("-.")
        while (marker := (yield from reader.try_take("[CALL_ID]", "[ARGS]"))) is not None:
            if marker == "[CALL_ID]":
                yield from reader.word("-")
        yield from told_call(reader, name, sink)

    def written(self, lark: Lark, tools: Sequence[Tool], *, several: bool) -> Written:
        """See `CallFormat.written`."""
        if lark.is_special("[ARGS]"):
            heads = [f"{lark.text(tool.name + '[ARGS]')} {lark.arguments(tool)}" for tool in tools]
            return Written("[TOOL_CALLS]", lark.any_of(heads), "")
        one = lark.any_of([lark.named_object(tool) for tool in tools])
        calls = lark.list_of(one, several=several)
        return Written("[TOOL_CALLS]", f'" [" {calls} "]"')


class SectionFormat(NamedTuple):
    """A section of calls, each with its name before and its object behind a separator."""

    begins: str
    call_begins: str
    separator: str
    call_ends: str
    ends: str
    before: tuple[str, str] = ("", "")
    """What stands before and behind a name before the object."""
    behind: str = ""
    """What stands behind the object."""
    call_gap: str = ""
    """What stands between two calls."""
    bare: str = ""

    @property
    def openers(self) -> tuple[str, ...]:
        """See `CallFormat.openers`."""
        return (self.begins, self.call_begins)

    @property
    def markers(self) -> frozenset[str]:
        """See `CallFormat.markers`."""
        return frozenset({self.begins, self.call_begins, self.separator, self.call_ends, self.ends})

    def read(
        self, opener: str | None, reader: Reader, _tools: Tools, sink: CallSink
    ) -> Steps[None]:
        """See `CallFormat.read`."""
        if opener == self.begins:
            yield from reader.skip_blank()
            yield from reader.expect(self.call_begins)
        while True:
            name = (yield from reader.until(self.separator)).strip()
            if name == "function" and (yield from reader.skip_blank()) != "{":
                # DeepSeek V3 and R1: the kind stands first, the object in a block of code.
                name = (yield from reader.until("\n")).strip()
                yield from reader.skip_blank()
                yield from reader.expect("```json")
            yield from told_call(reader, _bare_name(name), sink)
            yield from reader.skip_blank(" \t\r\n`")
            yield from reader.try_take(self.call_ends)
            yield from reader.skip_blank()
            if (yield from reader.try_take(self.call_begins, self.ends)) != self.call_begins:
                return

    def written(self, lark: Lark, tools: Sequence[Tool], *, several: bool) -> Written:
        """See `CallFormat.written`."""
        before, after = self.before
        ends = lark.text(self.behind + self.call_ends)
        calls = [
            f"{lark.text(self.call_begins + before + tool.name + after)} "
            f"{lark.arguments(tool)} {ends}"
            for tool in tools
        ]
        several_of = lark.list_of(lark.any_of(calls), several=several, between=self.call_gap)
        return Written(self.begins, f"{several_of} {lark.text(self.ends)}")

    def spelt(self, calls: Sequence[SpeltCall]) -> str:
        """Return calls as a model writes them that is held to the format."""
        before, after = self.before
        each = [
            f"{self.call_begins}{before}{call.name}{after}{_json(call.arguments)}{self.behind}"
            f"{self.call_ends}"
            for call in calls
        ]
        return f"{self.begins}{self.call_gap.join(each)}{self.ends}"


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _bare_name(name: str) -> str:
    """Return Kimi's `functions.name:0` as `name`."""
    found = _NUMBERED.match(name)
    return found.group(1) if found is not None else name


def _is_python(reader: Reader) -> Steps[bool]:
    """Whether `name(…)` or a list of such stands here rather than JSON; takes nothing."""
    place = reader.place()
    character = yield from reader.skip_blank()
    if character == "[":
        reader.take(1)
        character = yield from reader.skip_blank()
    reader.back(place)
    return _begins_name(character)


def _takes_fence(reader: Reader) -> Steps[bool]:
    """Take the begin of a block of code, with the word behind it, if one stands here."""
    yield from reader.skip_blank()
    if (yield from reader.try_take(_FENCE)) is None:
        return False
    yield from reader.word()
    return True


def _begins_name(character: str) -> bool:
    return character.isalpha() or character == "_"


HERMES: Final = JsonFormat(
    ("<tool_call>", "```json"),
    ("</tool_call>", "```"),
    loose=frozenset({"```json"}),
    bare="{[",
    each=("<tool_call>\n", "\n</tool_call>"),
    between="\n",
)
LLAMA: Final = JsonFormat(
    ("<|python_tag|>", "<|python_start|>"),
    ("<|python_end|>", "<|eom_id|>"),
    loose=frozenset({"<|python_tag|>", "<|python_start|>"}),
    bare="{[",
    between="; ",
    key="parameters",
)
PHI: Final = JsonFormat(
    ("<|tool_call|>", "functools"),
    ("<|/tool_call|>",),
    all=("<|tool_call|>[", "]<|/tool_call|>"),
)
GRANITE: Final = JsonFormat(
    ("<|tool_call|>", "<tool_call>", "<function_call>"),
    ("</tool_call>",),
    all=("<|tool_call|>[", "]"),
)
MISTRAL: Final = MistralFormat()
DEEPSEEK_V31: Final = SectionFormat(
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
    before=("", "<｜tool▁sep｜>"),
)
DEEPSEEK_V3: Final = DEEPSEEK_V31._replace(
    before=("function<｜tool▁sep｜>", "\n```json\n"), behind="\n```", call_gap="\n"
)
GENERIC: Final = GenericFormat(
    HERMES._replace(
        opens=("<tool_call>", "```json", "```tool_call", "```tool_code"),
        loose=frozenset({"```json", "```tool_call", "```tool_code"}),
    ),
    DEEPSEEK_V3,
)
KIMI: Final = SectionFormat(
    "<|tool_calls_section_begin|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<|tool_calls_section_end|>",
    before=("functions.", ":0<|tool_call_argument_begin|>"),
)
