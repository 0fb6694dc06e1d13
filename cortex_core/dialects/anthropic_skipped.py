"""Blocks that only Anthropic's own servers write or read: history that no prompt here can show."""

import msgspec


class SkippedBlock(msgspec.Struct, frozen=True):
    """Taken as it is, whatever its members are, and left out."""


class RedactedThinkingBlock(SkippedBlock, frozen=True, tag="redacted_thinking"):
    pass


class ServerToolUseBlock(SkippedBlock, frozen=True, tag="server_tool_use"):
    pass


class WebSearchResultBlock(SkippedBlock, frozen=True, tag="web_search_tool_result"):
    pass


class WebFetchResultBlock(SkippedBlock, frozen=True, tag="web_fetch_tool_result"):
    pass


class CodeResultBlock(SkippedBlock, frozen=True, tag="code_execution_tool_result"):
    pass


class BashResultBlock(SkippedBlock, frozen=True, tag="bash_code_execution_tool_result"):
    pass


class EditorResultBlock(SkippedBlock, frozen=True, tag="text_editor_code_execution_tool_result"):
    pass


class ToolSearchResultBlock(SkippedBlock, frozen=True, tag="tool_search_tool_result"):
    pass


class AdvisorResultBlock(SkippedBlock, frozen=True, tag="advisor_tool_result"):
    pass


class ContainerUploadBlock(SkippedBlock, frozen=True, tag="container_upload"):
    pass


class McpToolUseBlock(SkippedBlock, frozen=True, tag="mcp_tool_use"):
    pass


class McpToolResultBlock(SkippedBlock, frozen=True, tag="mcp_tool_result"):
    pass


class McpToolListingBlock(SkippedBlock, frozen=True, tag="mcp_tool_listing"):
    pass


class FallbackBlock(SkippedBlock, frozen=True, tag="fallback"):
    pass


class BrowserStateBlock(SkippedBlock, frozen=True, tag="browser_state"):
    pass


ServerBlock = (
    RedactedThinkingBlock
    | ServerToolUseBlock
    | WebSearchResultBlock
    | WebFetchResultBlock
    | CodeResultBlock
    | BashResultBlock
    | EditorResultBlock
    | ToolSearchResultBlock
    | AdvisorResultBlock
    | ContainerUploadBlock
    | McpToolUseBlock
    | McpToolResultBlock
    | McpToolListingBlock
    | FallbackBlock
)
"""Those that stand in a message; `BrowserStateBlock` stands in the result of a tool."""
