"""What the text of an answer is made of. Pure."""

from typing import Any, Final, NamedTuple

import msgspec

from cortex_core.canonical import JsonObject, Tool
from neurond.text.parsing.schemas import argument_schema, is_text_schema, takes_null

MAX_DEPTH: Final = 64
"""Of what a call's arguments may nest; the recursion over it is ours."""


class Text(NamedTuple):
    """More of the visible answer; never empty."""

    text: str


class Reasoning(NamedTuple):
    """More of what the model thinks; never empty."""

    text: str


class CallBegun(NamedTuple):
    """A call, of which nothing but its name is known yet."""

    name: str


class CallArguments(NamedTuple):
    """More of the arguments of the call that was begun last; never empty.

    Those of a whole call concatenate to an object of JSON, those of one that broke off to the
    beginning of one.
    """

    text: str


class CallEnded(NamedTuple):
    """The call that was begun last has all its arguments, or broke off and nothing follows."""

    is_whole: bool


CallSegment = CallBegun | CallArguments | CallEnded
Segment = Text | Reasoning | CallSegment


class Call(NamedTuple):
    """A whole call. `arguments` is a JSON object as text."""

    name: str
    arguments: str


class Malformed(Exception):
    """The text is not what its format would have it be. No error of the request: it is text."""


class Tools:
    """The tools of one request, by name.

    Args:
        tools: all of them.
        holds_strict: calls of strict tools are held to their parameters where they can be.
    """

    def __init__(self, tools: tuple[Tool, ...], *, holds_strict: bool = False) -> None:
        self._parameters: dict[str, JsonObject] = {
            tool.name: tool.parameters or {} for tool in tools
        }
        free = tuple(tool for tool in tools if not (holds_strict and tool.strict))
        self.unheld = self if len(free) == len(tools) else Tools(free)
        """Those that may be called in spellings which no grammar holds."""

    def __contains__(self, name: str) -> bool:
        return name in self._parameters

    def __bool__(self) -> bool:
        return bool(self._parameters)

    def is_text(self, name: str, argument: str) -> bool:
        """Whether an argument is text, whatever it says."""
        parameters = self._parameters.get(name, {})
        schema = argument_schema(parameters, argument)
        return is_text_schema(schema, parameters) and not takes_null(schema, parameters)

    def value(self, name: str, argument: str, text: str) -> Any:
        """Return what the value of an argument stands for; see `value_of`.

        Raises:
            Malformed: it nests too deeply.
        """
        parameters = self._parameters.get(name, {})
        return value_of(text, argument_schema(parameters, argument), parameters)


def value_of(text: str, schema: JsonObject, root: JsonObject) -> Any:
    """Return what a value stands for that was written without quotes around strings.

    Args:
        text: as it was written.
        schema: of the value.
        root: what its references are into.

    Raises:
        Malformed: it nests too deeply.
    """
    if is_text_schema(schema, root):
        is_null = text in ("null", "None") and takes_null(schema, root)
        return None if is_null else text
    try:
        value = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        words = {"True": True, "False": False, "None": None}
        return words.get(text, text)
    except RecursionError:
        raise Malformed("it nests too deeply") from None
    return value
