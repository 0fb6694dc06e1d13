"""The format whose calls are a list as in Python: Llama 3.2, Llama 4 and Olmo 3. Pure."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from cortex_core.canonical import Tool
from neurond.text.parsing.call_sink import CallSink
from neurond.text.parsing.lark import Lark, Written
from neurond.text.parsing.python_text import python_calls
from neurond.text.parsing.reader import Reader, Steps
from neurond.text.parsing.schemas import arguments_of
from neurond.text.parsing.segments import Tools

_KEY: Final = r"/[A-Za-z_][A-Za-z0-9_]*/"


class PythonFormat(NamedTuple):
    """`[name(key=value, …), …]` at the beginning of an answer, or behind a marker."""

    bare: str = "["

    @property
    def openers(self) -> tuple[str, ...]:
        """See `CallFormat.openers`."""
        return ("<|python_start|>", "<|python_tag|>", "<function_calls>")

    @property
    def markers(self) -> frozenset[str]:
        """See `CallFormat.markers`."""
        return frozenset((*self.openers, "<|python_end|>", "</function_calls>"))

    def read(
        self, _opener: str | None, reader: Reader, tools: Tools, sink: CallSink
    ) -> Steps[None]:
        """See `CallFormat.read`."""
        following: str = yield from reader.skip_blank()
        while True:
            yield from python_calls(reader, tools, sink)
            following = yield from reader.skip_blank()
            if not (following.isalpha() or following in ("_", "[")):
                break
        yield from reader.try_take("<|python_end|>", "</function_calls>")

    def written(self, lark: Lark, tools: Sequence[Tool], *, several: bool) -> Written:
        """See `CallFormat.written`."""
        one = lark.any_of([_call(lark, tool) for tool in tools])
        return Written("", f'"[" {lark.list_of(one, several=several)} "]"')


def _call(lark: Lark, tool: Tool) -> str:
    arguments = arguments_of(tool)
    begins, ends = lark.text(f"{tool.name}("), lark.text(")")
    if arguments is None:
        any_one = lark.rule(f'{lark.rule(_KEY)} "=" {lark.json({}, strict=False)}')
        return f"{begins} ({lark.list_of(any_one, several=True)})? {ends}"
    parts = [
        (
            f"{lark.text(argument.key + '=')} {lark.json(argument.schema, strict=tool.strict)}",
            argument.required,
        )
        for argument in arguments
    ]
    return f"{begins} {lark.parts(parts, ', ')} {ends}"


PYTHONIC: Final = PythonFormat()
