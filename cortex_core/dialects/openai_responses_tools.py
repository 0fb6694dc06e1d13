"""Tools of `/v1/responses`: functions; what would run at OpenAI's servers is left out."""

from collections.abc import Container, Iterator
from typing import Literal

import msgspec

from cortex_core.canonical import JsonObject, Tool, ToolChoice
from cortex_core.dialects.fields import check_num_tools, named_choice
from cortex_core.dialects.openai_tools import only_named, tool_choice_from
from cortex_core.dialects.reading import refuse


class WireTool(msgspec.Struct, frozen=True):
    """A tool of any type; a function's members stand in the tool itself."""

    type: str = "function"
    name: str | None = None
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class NamedTool(msgspec.Struct, frozen=True):
    type: str | None = None
    name: str | None = None


class WireChoice(msgspec.Struct, frozen=True):
    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[NamedTool] | None = None


WireToolChoice = Literal["auto", "none", "required"] | WireChoice


class ToolsAsked(msgspec.Struct, frozen=True):
    """What the model is offered. `ignored` are JSON paths, `warnings` the same in words."""

    tools: tuple[Tool, ...]
    choice: ToolChoice
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def tools_asked(wire: list[WireTool] | None, choice: WireToolChoice | None) -> ToolsAsked:
    """Return the functions, and the choice among them.

    Raises:
        InvalidRequest: there are too many tools, a function has no name, or the choice names, or
            requires, a function that is not there.
    """
    sent = wire or []
    check_num_tools(len(sent))
    tools = tuple(_tool(tool, n) for n, tool in enumerate(sent) if tool.type == "function")
    names = {tool.name for tool in sent if tool.type != "function" and tool.name}
    names -= {tool.name for tool in tools}
    left_out = {
        f"tools[{n}]": f"type {tool.type!r} is not served, left out"
        for n, tool in enumerate(sent)
        if tool.type != "function"
    }
    wanted, offered = choice, tools
    if isinstance(choice, WireChoice) and choice.type == "allowed_tools":
        wanted = choice.mode or "auto"
        left_out |= dict.fromkeys(_not_served(choice, names), "this tool is not served, left out")
        offered = _allowed(choice, tools, left_out)
    if left_out and _asks_for_left_out(wanted, offered, names):
        left_out["tool_choice"] = "asks for a tool that was left out, taken as auto"
        wanted = "auto"
    if tools and not offered:
        left_out["tool_choice.tools"] = "leaves no tool that is served; the model is offered none"
    warnings = tuple(f"{place}: {why}" for place, why in left_out.items())
    return ToolsAsked(offered, _choice(wanted, offered), tuple(left_out), warnings)


def _tool(wire: WireTool, place: int) -> Tool:
    if not wire.name:
        raise refuse(f"tools[{place}].name", "this field is required")
    return Tool(wire.name, wire.description, wire.parameters, strict=bool(wire.strict))


def _allowed(
    choice: WireChoice, tools: tuple[Tool, ...], left_out: Container[str]
) -> tuple[Tool, ...]:
    """Return the tools among which the model may choose; what is not allowed is not offered."""
    allowed = (
        (f"{place}.name", tool.name or "")
        for place, tool in _places(choice)
        if place not in left_out
    )
    return only_named(allowed, tools)


def _not_served(choice: WireChoice, names: Container[str | None]) -> Iterator[str]:
    """Yield the places of allowed tools that were left out, by their type or as `names`."""
    for place, tool in _places(choice):
        if tool.type not in (None, "function") or tool.name in names:
            yield place


def _places(choice: WireChoice) -> Iterator[tuple[str, NamedTool]]:
    for number, tool in enumerate(choice.tools or ()):
        yield f"tool_choice.tools[{number}]", tool


def _asks_for_left_out(
    wanted: WireToolChoice | None, tools: tuple[Tool, ...], names: Container[str | None]
) -> bool:
    if isinstance(wanted, WireChoice):
        return wanted.type != "function" or wanted.name in names
    return wanted == "required" and not tools


def _choice(wanted: WireToolChoice | None, tools: tuple[Tool, ...]) -> ToolChoice:
    if not isinstance(wanted, WireChoice):
        return tool_choice_from(wanted, tools)
    if wanted.type != "function":
        raise refuse("tool_choice.type", f"there is no tool of type {wanted.type!r} in tools")
    return named_choice(wanted.name or "", tools, place="tool_choice.name")


def tool_json(tool: Tool) -> JsonObject:
    """Return a function as answers repeat it."""
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def choice_json(choice: ToolChoice) -> str | JsonObject:
    """Return the choice as answers repeat it."""
    if choice.mode == "named":
        return {"type": "function", "name": choice.name}
    return choice.mode
