"""The format whose calls are a list as in Python: Llama 3.2, Llama 4 and Olmo 3. Pure."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from cortex_core.canonical import Tool
from neurond.text.parsing.lark import Lark, Written, arguments_of, sequence
from neurond.text.parsing.parser import FoundCall
from neurond.text.parsing.python_text import python_calls
from neurond.text.parsing.reader import Reader, Steps
from neurond.text.parsing.segments import Tools


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
        self, _opener: str | None, reader: Reader, tools: Tools, found: FoundCall
    ) -> Steps[None]:
        """See `CallFormat.read`."""
        following: str = yield from reader.skip_blank()
        while True:
            yield from python_calls(reader, tools, found)
            following = yield from reader.skip_blank()
            if not (following.isalpha() or following in ("_", "[")):
                break
        yield from reader.try_take("<|python_end|>", "</function_calls>")

    def written(self, lark: Lark, tools: Sequence[Tool], *, several: bool) -> Written:
        """See `CallFormat.written`."""
        one = lark.any_of([_call(lark, tool) for tool in tools])
        return Written("", f'"[" {lark.list_of(one, several=several)} "]"')


def _call(lark: Lark, tool: Tool) -> str:
    parts = [
        (
            f"{lark.text(argument.key + '=')} {lark.json(argument.schema, strict=tool.strict)}",
            argument.required,
        )
        for argument in arguments_of(tool) or ()
    ]
    return f"{lark.text(tool.name + '(')} {sequence(lark, parts, ', ')} {lark.text(')')}"


PYTHONIC: Final = PythonFormat()
