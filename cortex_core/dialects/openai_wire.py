"""Messages and tools of OpenAI's chat dialect as they stand on the wire, every documented field."""

from typing import Any, Literal

import msgspec

from cortex_core.canonical import JsonObject

LeftOut = Any
"""A documented field that is understood and has no effect on an answer of ours, or is refused."""


class TextContent(msgspec.Struct, frozen=True, tag="text"):
    text: str
    prompt_cache_breakpoint: LeftOut = None


class RefusalContent(msgspec.Struct, frozen=True, tag="refusal"):
    refusal: str


class ImageUrl(msgspec.Struct, frozen=True):
    url: str
    detail: LeftOut = None


class ImageContent(msgspec.Struct, frozen=True, tag="image_url"):
    image_url: ImageUrl | str
    prompt_cache_breakpoint: LeftOut = None


class AudioData(msgspec.Struct, frozen=True):
    data: str
    format: str | None = None


class AudioContent(msgspec.Struct, frozen=True, tag="input_audio"):
    input_audio: AudioData
    prompt_cache_breakpoint: LeftOut = None


class FileData(msgspec.Struct, frozen=True):
    file_data: str | None = None
    file_id: LeftOut = None
    filename: LeftOut = None


class FileContent(msgspec.Struct, frozen=True, tag="file"):
    file: FileData
    prompt_cache_breakpoint: LeftOut = None


Content = TextContent | RefusalContent | ImageContent | AudioContent | FileContent


class CalledFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str | JsonObject | None = None


class ToolCall(msgspec.Struct, frozen=True):
    id: str
    type: str = "function"
    function: CalledFunction | None = None
    custom: LeftOut = None


class WireMessage(msgspec.Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Content] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: CalledFunction | None = None
    audio: LeftOut = None


class Function(msgspec.Struct, frozen=True):
    name: str
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class WireTool(msgspec.Struct, frozen=True):
    type: str = "function"
    function: Function | None = None
    custom: LeftOut = None


class NamedFunction(msgspec.Struct, frozen=True):
    name: str


class NamedChoice(msgspec.Struct, frozen=True, tag="function"):
    function: NamedFunction


class AllowedTool(msgspec.Struct, frozen=True):
    type: str = "function"
    function: NamedFunction | None = None


class AllowedTools(msgspec.Struct, frozen=True):
    mode: Literal["auto", "required"]
    tools: list[AllowedTool]


class AllowedChoice(msgspec.Struct, frozen=True, tag="allowed_tools"):
    allowed_tools: AllowedTools


class CustomChoice(msgspec.Struct, frozen=True, tag="custom"):
    custom: LeftOut = None


WireToolChoice = Literal["auto", "none", "required"] | NamedChoice | AllowedChoice | CustomChoice
