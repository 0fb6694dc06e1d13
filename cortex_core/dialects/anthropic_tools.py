"""Tools of an Anthropic request: custom ones, and typed ones whose schema the client leaves out."""

from typing import Final

import msgspec

from cortex_core.canonical import JsonObject, Tool, ToolChoice
from cortex_core.dialects.fields import named_choice
from cortex_core.dialects.reading import refuse


class WireTool(msgspec.Struct, frozen=True):
    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: JsonObject | None = None
    strict: bool | None = None


class AutoChoice(msgspec.Struct, frozen=True, tag="auto"):
    disable_parallel_tool_use: bool | None = None


class AnyChoice(msgspec.Struct, frozen=True, tag="any"):
    disable_parallel_tool_use: bool | None = None


class NamedChoice(msgspec.Struct, frozen=True, tag="tool"):
    name: str
    disable_parallel_tool_use: bool | None = None


class NoChoice(msgspec.Struct, frozen=True, tag="none"):
    pass


WireToolChoice = AutoChoice | AnyChoice | NamedChoice | NoChoice


def _object(required: list[str], **properties: JsonObject) -> JsonObject:
    return {"type": "object", "properties": properties, "required": required}


_TEXT: Final[JsonObject] = {"type": "string"}
_NUMBER: Final[JsonObject] = {"type": "integer"}
_LINES: Final[JsonObject] = {"type": "array", "items": _NUMBER}

# By the prefix of the type's name, which ends in a date. These run at the client; types that
# would run at Anthropic's servers have nobody to run them here, and are left out.
_CLIENT_TOOLS: Final[dict[str, tuple[str, JsonObject]]] = {
    "bash_": (
        "Run a command in a bash shell that stays open between calls.",
        _object([], command=_TEXT, restart={"type": "boolean"}),
    ),
    "text_editor_": (
        "View, create and edit files.",
        _object(
            ["command", "path"],
            command={"enum": ["view", "create", "str_replace", "insert"]},
            path=_TEXT,
            file_text=_TEXT,
            old_str=_TEXT,
            new_str=_TEXT,
            insert_line=_NUMBER,
            insert_text=_TEXT,
            view_range=_LINES,
        ),
    ),
    "memory_": (
        "Keep notes in files under /memories.",
        _object(
            ["command"],
            command={"enum": ["view", "create", "str_replace", "insert", "delete", "rename"]},
            path=_TEXT,
            file_text=_TEXT,
            old_str=_TEXT,
            new_str=_TEXT,
            insert_line=_NUMBER,
            insert_text=_TEXT,
            view_range=_LINES,
            old_path=_TEXT,
            new_path=_TEXT,
        ),
    ),
}


def tools_from(wire: list[WireTool] | None) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """Return the tools that the client runs, and the JSON paths of those left out.

    Raises:
        InvalidRequest: a custom tool has no name or no schema.
    """
    tools: list[Tool] = []
    ignored: list[str] = []
    for index, each in enumerate(wire or ()):
        tool = _tool(each, f"tools[{index}]")
        if tool is None:
            ignored.append(f"tools[{index}]")
        else:
            tools.append(tool)
    return tuple(tools), tuple(ignored)


def _tool(wire: WireTool, place: str) -> Tool | None:
    description, schema = wire.description, wire.input_schema
    if schema is None:
        if wire.type in (None, "custom"):
            raise refuse(f"{place}.input_schema", "this field is required in a custom tool")
        known = _client_tool(wire.type or "")
        if known is None:
            return None
        description, schema = description or known[0], known[1]
    if not wire.name:
        raise refuse(f"{place}.name", "this field is required")
    return Tool(wire.name, description, schema, strict=bool(wire.strict))


def _client_tool(kind: str) -> tuple[str, JsonObject] | None:
    for prefix, known in _CLIENT_TOOLS.items():
        # `bash_code_execution_...` and its like run at the server and only share the prefix.
        if kind.startswith(prefix) and "code_execution" not in kind:
            return known
    return None


def tool_choice_from(wire: WireToolChoice | None, tools: tuple[Tool, ...]) -> ToolChoice:
    """Return the canonical choice.

    Raises:
        InvalidRequest: it names, or requires, a tool that is not among `tools`.
    """
    match wire:
        case AnyChoice():
            if not tools:
                raise refuse("tool_choice", "a tool is required, but there are no tools")
            return ToolChoice(mode="required")
        case NamedChoice(name=name):
            return named_choice(name, tools, place="tool_choice.name")
        case NoChoice():
            return ToolChoice(mode="none")
        case _:
            return ToolChoice()


def parallel_from(wire: WireToolChoice | None) -> bool:
    """Return whether the model may call several tools at once."""
    return isinstance(wire, NoChoice | None) or not wire.disable_parallel_tool_use
