"""Tools of an Anthropic request: those that clients run are given to the model."""

import msgspec

from cortex_core.canonical import JsonObject, Tool, ToolChoice
from cortex_core.dialects.anthropic_skipped import SkippedBlock
from cortex_core.dialects.anthropic_typed_tools import Screen, typed_tool
from cortex_core.dialects.fields import named_choice
from cortex_core.dialects.reading import refuse


class WireTool(msgspec.Struct, frozen=True):
    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: JsonObject | None = None
    strict: bool | None = None
    display_width_px: int | None = None
    display_height_px: int | None = None
    enable_zoom: bool | None = None


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


class ToolByName(msgspec.Struct, frozen=True, tag="tool_reference"):
    name: str


class ToolDefinition(msgspec.Struct, frozen=True, tag="tool_definition"):
    definition: WireTool


class McpToolByName(SkippedBlock, frozen=True, tag="mcp_tool_reference"):
    pass


class McpToolsetByName(SkippedBlock, frozen=True, tag="mcp_toolset_reference"):
    pass


class ToolAdditionBlock(msgspec.Struct, frozen=True, tag="tool_addition"):
    """From here in the conversation on, the model may call one more tool."""

    tool: ToolByName | ToolDefinition | McpToolByName | McpToolsetByName


class ToolRemovalBlock(msgspec.Struct, frozen=True, tag="tool_removal"):
    """From here in the conversation on, the model may not call this tool any more."""

    tool: ToolByName | McpToolByName | McpToolsetByName


ToolChange = ToolAdditionBlock | ToolRemovalBlock


class OfferedTools:
    """The tools that hold for the answer. Open models are told of them once, before all turns."""

    def __init__(self) -> None:
        self.ignored: list[str] = []
        """JSON paths of what was left out."""
        self._known: dict[str, Tool] = {}
        self._withdrawn: set[str] = set()
        self._left_out: dict[str, str] = {}

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Those that were not withdrawn, in the order in which they were declared."""
        return tuple(tool for name, tool in self._known.items() if name not in self._withdrawn)

    def declare(self, wire: WireTool, place: str) -> None:
        """Offer a tool, or leave it out where only Anthropic's servers could run it.

        Raises:
            InvalidRequest: a custom tool has no name or no schema.
        """
        tool = _tool(wire, place)
        if tool is None:
            self.ignored.append(place)
            if wire.name:
                self._left_out[wire.name] = place
            return
        self._known[tool.name] = tool
        self._withdrawn.discard(tool.name)

    def change(self, block: ToolChange, place: str) -> None:
        """Follow a change in mid-conversation.

        Raises:
            InvalidRequest: it names a tool that was not declared, or defines a bad one.
        """
        match block.tool:
            case ToolDefinition(definition=definition):
                self.declare(definition, f"{place}.tool.definition")
            case ToolByName(name=name) if name in self._known:
                withdraw = isinstance(block, ToolRemovalBlock)
                (self._withdrawn.add if withdraw else self._withdrawn.discard)(name)
            case ToolByName(name=name) if name not in self._left_out:
                raise refuse(f"{place}.tool.name", f"there is no tool {name!r} in tools")
            case _:
                self.ignored.append(place)

    def choice(self, wire: WireToolChoice | None) -> ToolChoice:
        """Return the canonical choice.

        Raises:
            InvalidRequest: it names, or requires, a tool that is not offered.
        """
        match wire:
            case AnyChoice():
                if not self.tools:
                    raise refuse("tool_choice", "a tool is required, but there are no tools")
                return ToolChoice(mode="required")
            case NamedChoice(name=name):
                if name in self._left_out:
                    why = f"{self._left_out[name]} is run by Anthropic's servers only, not here"
                    raise refuse("tool_choice.name", why)
                return named_choice(name, self.tools, place="tool_choice.name")
            case NoChoice():
                return ToolChoice(mode="none")
            case _:
                return ToolChoice()


def _tool(wire: WireTool, place: str) -> Tool | None:
    if wire.input_schema is None and wire.type in (None, "custom"):
        raise refuse(f"{place}.input_schema", "this field is required in a custom tool")
    screen = Screen(wire.display_width_px, wire.display_height_px, bool(wire.enable_zoom))
    known = typed_tool(wire.type or "", wire.name or "", screen)
    schema = wire.input_schema
    if schema is None:
        if known is None:
            return None
        schema = known.parameters
    if not wire.name:
        raise refuse(f"{place}.name", "this field is required")
    description = wire.description
    if description is None and known is not None:
        description = known.description
    return Tool(wire.name, description, schema, strict=bool(wire.strict))


def parallel_from(wire: WireToolChoice | None) -> bool:
    """Return whether the model may call several tools at once."""
    return isinstance(wire, NoChoice | None) or not wire.disable_parallel_tool_use
