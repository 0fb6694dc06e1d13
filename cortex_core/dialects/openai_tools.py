"""Tools of an OpenAI chat request, and which of them may or must be called."""

from collections.abc import Iterable, Iterator
from typing import Literal

from cortex_core.canonical import Tool, ToolChoice
from cortex_core.dialects.fields import check_num_tools, named_choice
from cortex_core.dialects.openai_wire import (
    AllowedChoice,
    AllowedTools,
    CustomChoice,
    Function,
    NamedChoice,
    WireTool,
    WireToolChoice,
)
from cortex_core.dialects.reading import refuse

_NO_CUSTOM = "not supported: send tools of type function"


def tools_from(wire: list[WireTool] | None) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """Return the functions, and the JSON paths of tools of unknown types, which are left out.

    Raises:
        InvalidRequest: there are too many, a tool of type function comes without one, or one is
            custom.
    """
    check_num_tools(len(wire or ()))
    tools: list[Tool] = []
    ignored: list[str] = []
    for place, tool in enumerate(wire or ()):
        if tool.custom is not None:
            raise refuse(f"tools[{place}].custom", _NO_CUSTOM)
        if tool.type != "function":
            ignored.append(f"tools[{place}]")
        elif tool.function is None:
            raise refuse(f"tools[{place}].function", "this field is required")
        else:
            tools.append(_tool(tool.function))
    return tuple(tools), tuple(ignored)


def _tool(function: Function) -> Tool:
    return Tool(
        name=function.name,
        description=function.description,
        parameters=function.parameters,
        strict=bool(function.strict),
    )


def allowed_tools(wire: WireToolChoice | None, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    """Return those of `tools` that the choice leaves.

    Raises:
        InvalidRequest: it allows one that is not among them.
    """
    return _allowed(wire.allowed_tools, tools) if isinstance(wire, AllowedChoice) else tools


def tool_choice_from(wire: WireToolChoice | None, tools: tuple[Tool, ...]) -> ToolChoice:
    """Return the canonical choice among `tools`, which are those that it leaves.

    Raises:
        InvalidRequest: it names, or requires, a tool that is not among `tools`.
    """
    match wire:
        case None:
            return ToolChoice()
        case NamedChoice(function=function):
            return named_choice(function.name, tools, place="tool_choice.function.name")
        case AllowedChoice(allowed_tools=allowed):
            return _mode(allowed.mode, tools)
        case CustomChoice():
            raise refuse("tool_choice.custom", _NO_CUSTOM)
        case _:
            return _mode(wire, tools)


def _mode(mode: Literal["auto", "none", "required"], tools: tuple[Tool, ...]) -> ToolChoice:
    if mode == "required" and not tools:
        raise refuse("tool_choice", "a tool is required, but there are no tools")
    return ToolChoice(mode)


def _allowed(allowed: AllowedTools, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    return only_named(_allowed_names(allowed), tools)


def _allowed_names(allowed: AllowedTools) -> Iterator[tuple[str, str]]:
    for number, each in enumerate(allowed.tools):
        place = f"tool_choice.allowed_tools.tools[{number}]"
        if each.function is None:
            raise refuse(place, "expected a tool of type function, with its name")
        yield f"{place}.function.name", each.function.name


def only_named(allowed: Iterable[tuple[str, str]], tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    """Return those of `tools` that are allowed, in time linear in both.

    Args:
        allowed: JSON paths, each with the name that stands there.
        tools: the tools of the request.

    Raises:
        InvalidRequest: naming the place of a name that none of `tools` has.
    """
    known = {tool.name for tool in tools}
    names: set[str] = set()
    for place, name in allowed:
        if name not in known:
            raise refuse(place, f"there is no tool {name!r} in tools")
        names.add(name)
    return tuple(tool for tool in tools if tool.name in names)
