"""The formats whose calls name each argument in tags, or as Gemma does. Pure.

Sources: the chat templates of Qwen 3 Coder and GLM 4.5 to 4.7, FunctionGemma and Gemma 4.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from cortex_core.canonical import Tool
from neurond.text.parsing.call_sink import ArgumentsByName, CallSink
from neurond.text.parsing.json_calls import json_calls
from neurond.text.parsing.lark import Lark, Written
from neurond.text.parsing.python_text import Notation, read_key, read_value
from neurond.text.parsing.reader import Reader, Steps
from neurond.text.parsing.schemas import Argument, arguments_of
from neurond.text.parsing.segments import Malformed, Tools

_GLM_KEY: Final = r"/[^\s<]+/"
_LINE_END: Final = r"/\n?/"


class QwenTagsFormat(NamedTuple):
    """`<function=name><parameter=key>` with values as they are, between `<tool_call>` and its end.

    Models that were trained on Hermes' JSON too fall back to it. Some leave `</function>` out.
    """

    outer: str = "tool_call"
    bare: str = ""

    @property
    def openers(self) -> tuple[str, ...]:
        """See `CallFormat.openers`."""
        return (f"<{self.outer}>", "<function=")

    @property
    def markers(self) -> frozenset[str]:
        """See `CallFormat.markers`."""
        return frozenset({f"<{self.outer}>", f"</{self.outer}>"})

    def read(self, opener: str | None, reader: Reader, tools: Tools, sink: CallSink) -> Steps[None]:
        """See `CallFormat.read`."""
        if opener != "<function=" and (yield from reader.skip_blank()) in ("{", "["):
            yield from json_calls(reader, None, sink)
        else:
            if opener != "<function=":
                yield from reader.expect("<function=")
            yield from _qwen_function(reader, tools, sink, f"</{self.outer}>")
        yield from reader.skip_blank()
        yield from reader.try_take(f"</{self.outer}>")

    def written(self, lark: Lark, tools: Sequence[Tool], *, several: bool) -> Written:  # noqa: ARG002 - each call is opened anew
        """See `CallFormat.written`."""
        calls = lark.any_of([_qwen_call(lark, tool) for tool in tools])
        ends = lark.text(f"\n</{self.outer}>")
        return Written(f"<{self.outer}>\n", f"{calls} {ends}", "\n")


def _qwen_call(lark: Lark, tool: Tool) -> str:
    arguments = arguments_of(tool)
    if arguments is None:
        return lark.named_object(tool)
    parts: list[tuple[str, bool]] = []
    for argument in arguments:
        head, tail = lark.text(f"<parameter={argument.key}>\n"), "\n</parameter>\n"
        # The parser ends a text at the tag, wherever that stands.
        value = (
            f"{lark.up_to('</parameter>')} {lark.rule(_LINE_END)}"
            if takes_any_text(tool, argument)
            else f"{plain_value(lark, argument, strict=tool.strict)} {lark.text(tail)}"
        )
        parts.append((f"{head} {value}", argument.required))
    body = lark.parts(parts, "")
    begins = lark.text(f"<function={tool.name}>\n")
    return f"{begins} {body} {lark.text('</function>')}"


def takes_any_text(tool: Tool, argument: Argument) -> bool:
    """Whether a text between tags may be any, with line ends and all.

    What a strict tool says of its form is kept to at the price of these.
    """
    return argument.is_free_text or (
        not tool.strict and argument.is_text and argument.choices is None
    )


def plain_value(lark: Lark, argument: Argument, *, strict: bool) -> str:
    """Return an expression of a value that has no quotes around it where it is a string."""
    choices = argument.choices
    if choices is not None:
        return lark.any_of([lark.text(choice) for choice in choices])
    if argument.is_text:
        return lark.rule(r"/[^\n<]+/")
    return lark.json(argument.schema, strict=strict)


def _qwen_function(reader: Reader, tools: Tools, sink: CallSink, closes: str) -> Steps[None]:
    """Read a function up to its end, or up to the end of the call, which is taken too then."""
    name = (yield from reader.until(">")).strip()
    arguments = ArgumentsByName(name, sink)
    while True:
        yield from reader.skip_blank()
        if (yield from reader.expect("<parameter=", "</function>", closes)) != "<parameter=":
            arguments.end()
            return
        key = (yield from reader.until(">")).strip()
        arguments.key(key)
        # The line ends around a value belong to the format, what else is blank to the value.
        if tools.is_text(name, key):
            yield from arguments.text(reader, "</parameter>", in_lines=True)
        else:
            value = yield from reader.until("</parameter>")
            value = value.removeprefix("\n").removesuffix("\n")
            arguments.value(tools.value(name, key, value))


class GlmFormat(NamedTuple):
    """A name, then `<arg_key>` and `<arg_value>` in turn, between `<tool_call>` and its end."""

    bare: str = ""

    @property
    def openers(self) -> tuple[str, ...]:
        """See `CallFormat.openers`."""
        return ("<tool_call>",)

    @property
    def markers(self) -> frozenset[str]:
        """See `CallFormat.markers`."""
        return frozenset(
            {
                "<tool_call>",
                "</tool_call>",
                "<arg_key>",
                "</arg_key>",
                "<arg_value>",
                "</arg_value>",
            }
        )

    def read(
        self, _opener: str | None, reader: Reader, tools: Tools, sink: CallSink
    ) -> Steps[None]:
        """See `CallFormat.read`."""
        yield from reader.skip_blank()
        name = yield from reader.word("-.")
        arguments = ArgumentsByName(name, sink)
        while True:
            yield from reader.skip_blank()
            if (yield from reader.expect("<arg_key>", "</tool_call>")) == "</tool_call>":
                arguments.end()
                return
            key = (yield from reader.until("</arg_key>")).strip()
            yield from reader.skip_blank()
            yield from reader.expect("<arg_value>")
            arguments.key(key)
            if tools.is_text(name, key):
                yield from arguments.text(reader, "</arg_value>")
            else:
                value = yield from reader.until("</arg_value>")
                arguments.value(tools.value(name, key, value))

    def written(self, lark: Lark, tools: Sequence[Tool], *, several: bool) -> Written:  # noqa: ARG002 - each call is opened anew
        """See `CallFormat.written`."""
        calls = lark.any_of([_glm_call(lark, tool) for tool in tools])
        return Written("<tool_call>", f"{calls} {lark.text('</tool_call>')}", "\n")


def _glm_call(lark: Lark, tool: Tool) -> str:
    arguments = arguments_of(tool)
    line_end = lark.rule(_LINE_END)
    begins = f"{lark.text(tool.name)} {line_end}"
    if arguments is None:
        any_key = f"{lark.text('<arg_key>')} {lark.rule(_GLM_KEY)} {lark.text('</arg_key>')}"
        any_value = f"{lark.text('<arg_value>')} {lark.up_to('</arg_value>')}"
        one = lark.rule(f"{any_key} {line_end} {any_value} {line_end}")
        return f"{begins} {one}*"
    parts: list[tuple[str, bool]] = []
    for argument in arguments:
        key = lark.text(f"<arg_key>{argument.key}</arg_key>")
        head = f"{key} {line_end} {lark.text('<arg_value>')}"
        value = (
            lark.up_to("</arg_value>")
            if takes_any_text(tool, argument)
            else f"{plain_value(lark, argument, strict=tool.strict)} {lark.text('</arg_value>')}"
        )
        parts.append((f"{head} {value} {line_end}", argument.required))
    return f"{begins} {lark.parts(parts, '')}"


class GemmaFormat(NamedTuple):
    """`call:name{key:value}`, strings between quotes that are tokens of their own."""

    opens: str
    closes: str
    quote: str
    bare: str = ""

    @property
    def openers(self) -> tuple[str, ...]:
        """See `CallFormat.openers`."""
        return (self.opens,)

    @property
    def markers(self) -> frozenset[str]:
        """See `CallFormat.markers`."""
        return frozenset({self.opens, self.closes, self.quote})

    def read(
        self, _opener: str | None, reader: Reader, _tools: Tools, sink: CallSink
    ) -> Steps[None]:
        """See `CallFormat.read`."""
        notation = Notation((self.quote,), bare_keys=True)
        while True:
            yield from reader.skip_blank()
            yield from reader.expect("call:")
            name = yield from reader.word("-.")
            if not name:
                raise Malformed("a call without a name")
            yield from self._read_arguments(reader, notation, ArgumentsByName(name, sink))
            if (yield from reader.skip_blank()) != "c":
                break
        yield from reader.try_take(self.closes)

    def _read_arguments(
        self, reader: Reader, notation: Notation, arguments: ArgumentsByName
    ) -> Steps[None]:
        yield from reader.expect("{")
        while (yield from reader.skip_blank()) != "}":
            key = yield from read_key(reader, notation)
            yield from reader.skip_blank()
            yield from reader.expect(":")
            arguments.key(key)
            yield from reader.skip_blank()
            if (yield from reader.try_take(self.quote)) is not None:
                yield from arguments.text(reader, self.quote)
            else:
                value = yield from read_value(reader, notation, depth=1)
                if not (yield from reader.skip_blank()):
                    raise Malformed("this number may not be whole")
                arguments.value(value)
            if (yield from reader.skip_blank()) != "}":
                yield from reader.expect(",")
        reader.take(1)
        arguments.end()

    def written(self, lark: Lark, tools: Sequence[Tool], *, several: bool) -> Written:  # noqa: ARG002 - each call is opened anew
        """See `CallFormat.written`."""
        calls = lark.any_of([self._call(lark, tool) for tool in tools])
        return Written(self.opens, f"{calls} {lark.text(self.closes)}", "")

    def _call(self, lark: Lark, tool: Tool) -> str:
        arguments = arguments_of(tool)
        head = lark.text(f"call:{tool.name}")
        if arguments is None:
            return f"{head} {lark.arguments(tool)}"
        parts: list[tuple[str, bool]] = []
        for argument in arguments:
            value = self._value(lark, tool, argument)
            parts.append((f"{lark.text(argument.key + ':')} {value}", argument.required))
        return f'{head} "{{" {lark.parts(parts, ",")} "}}"'

    def _value(self, lark: Lark, tool: Tool, argument: Argument) -> str:
        if not takes_any_text(tool, argument):
            return lark.json(argument.schema, strict=tool.strict)
        text = f"{lark.text(self.quote)} {lark.up_to(self.quote)}"
        return lark.any_of([text, '"null"']) if argument.takes_null else text


QWEN_TAGS: Final = QwenTagsFormat()
SEED: Final = QwenTagsFormat("seed:tool_call")
GLM: Final = GlmFormat()
FUNCTION_GEMMA: Final = GemmaFormat("<start_function_call>", "<end_function_call>", "<escape>")
GEMMA_4: Final = GemmaFormat("<|tool_call>", "<tool_call|>", '<|"|>')
