"""Tools of `/v1/responses`: functions; what would run at OpenAI's servers is left out."""

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
    left_out = [(n, tool) for n, tool in enumerate(sent) if tool.type != "function"]
    ignored = [f"tools[{n}]" for n, _ in left_out]
    warnings = [f"tools[{n}]: type {tool.type!r} is not served, left out" for n, tool in left_out]
    wanted = choice
    if isinstance(choice, WireChoice) and choice.type == "allowed_tools":
        tools = _allowed(choice, tools)
        wanted = choice.mode or "auto"
    if left_out and _asks_for_left_out(wanted, tools):
        warnings.append("tool_choice: asks for a tool that was left out, taken as auto")
        ignored.append("tool_choice")
        wanted = "auto"
    return ToolsAsked(tools, _choice(wanted, tools), tuple(ignored), tuple(warnings))


def _tool(wire: WireTool, place: int) -> Tool:
    if not wire.name:
        raise refuse(f"tools[{place}].name", "this field is required")
    return Tool(wire.name, wire.description, wire.parameters, strict=bool(wire.strict))


def _allowed(choice: WireChoice, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    """Return the tools among which the model may choose; what is not allowed is not offered."""
    allowed = (
        (f"tool_choice.tools[{number}].name", tool.name or "")
        for number, tool in enumerate(choice.tools or ())
        if tool.type in (None, "function")
    )
    return only_named(allowed, tools)


def _asks_for_left_out(wanted: WireToolChoice | None, tools: tuple[Tool, ...]) -> bool:
    if isinstance(wanted, WireChoice):
        return wanted.type != "function"
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
