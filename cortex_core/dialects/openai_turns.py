"""Messages and tools of an OpenAI chat request: wire types, and their canonical form."""

from collections.abc import Iterator
from typing import Literal

import msgspec

from cortex_core.canonical import (
    JsonObject,
    MediaPart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from cortex_core.dialects.fields import check_num_parts, named_choice
from cortex_core.dialects.media import media_from_base64, media_from_url
from cortex_core.dialects.reading import refuse


class TextContent(msgspec.Struct, frozen=True, tag="text"):
    text: str


class RefusalContent(msgspec.Struct, frozen=True, tag="refusal"):
    refusal: str


class ImageUrl(msgspec.Struct, frozen=True):
    url: str


class ImageContent(msgspec.Struct, frozen=True, tag="image_url"):
    image_url: ImageUrl | str


class AudioData(msgspec.Struct, frozen=True):
    data: str
    format: str | None = None


class AudioContent(msgspec.Struct, frozen=True, tag="input_audio"):
    input_audio: AudioData


class FileData(msgspec.Struct, frozen=True):
    file_data: str | None = None


class FileContent(msgspec.Struct, frozen=True, tag="file"):
    file: FileData


Content = TextContent | RefusalContent | ImageContent | AudioContent | FileContent


class CalledFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str | JsonObject | None = None


class ToolCall(msgspec.Struct, frozen=True):
    id: str
    function: CalledFunction


class WireMessage(msgspec.Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Content] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class Function(msgspec.Struct, frozen=True):
    name: str
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class WireTool(msgspec.Struct, frozen=True):
    type: str = "function"
    function: Function | None = None


class NamedFunction(msgspec.Struct, frozen=True):
    name: str


class NamedChoice(msgspec.Struct, frozen=True, tag="function"):
    function: NamedFunction


WireToolChoice = Literal["auto", "none", "required"] | NamedChoice


def messages_from(wire: list[WireMessage]) -> tuple[Message, ...]:
    """Return the conversation as the client ordered it.

    Raises:
        InvalidRequest: there are no messages, too many, or one cannot stand as it is.
    """
    if not wire:
        raise refuse("messages", "expected at least one message")
    check_num_parts(sum(map(_num_parts, wire)))
    return tuple(_message(turn, f"messages[{place}]") for place, turn in enumerate(wire))


def _num_parts(wire: WireMessage) -> int:
    content = len(wire.content) if isinstance(wire.content, list) else 1
    return max(1, content) + len(wire.tool_calls or ())


def _message(wire: WireMessage, place: str) -> Message:
    if wire.role == "tool":
        return _tool_result(wire, place)
    return Message(role=wire.role, content=tuple(_parts(wire, place)), name=wire.name)


def _parts(wire: WireMessage, place: str) -> Iterator[Part]:
    if wire.reasoning_content:
        yield ReasoningPart(text=wire.reasoning_content)
    yield from _content(wire.content, f"{place}.content")
    if wire.refusal:
        yield TextPart(wire.refusal)
    if wire.tool_calls and wire.role != "assistant":
        raise refuse(f"{place}.tool_calls", "only assistant messages call tools")
    for call in wire.tool_calls or ():
        yield ToolCallPart(call.id, call.function.name, _arguments(call.function.arguments))


def _arguments(arguments: str | JsonObject | None) -> str:
    # Some clients send the parsed object back instead of the text they were given.
    if isinstance(arguments, dict):
        return msgspec.json.encode(arguments).decode()
    return arguments or "{}"


def _tool_result(wire: WireMessage, place: str) -> Message:
    if wire.tool_call_id is None:
        raise refuse(f"{place}.tool_call_id", "this field is required in a message of role tool")
    content = tuple(_content(wire.content, f"{place}.content"))
    part = ToolResultPart(call_id=wire.tool_call_id, content=content)
    return Message(role="tool", content=(part,), name=wire.name)


def _content(content: str | list[Content] | None, place: str) -> Iterator[TextPart | MediaPart]:
    if content is None:
        return
    if isinstance(content, str):
        yield TextPart(content)
        return
    for index, part in enumerate(content):
        yield _content_part(part, f"{place}[{index}]")


def _content_part(part: Content, place: str) -> TextPart | MediaPart:
    match part:
        case TextContent(text=text) | RefusalContent(refusal=text):
            return TextPart(text)
        case ImageContent(image_url=image):
            if isinstance(image, str):
                return media_from_url("image", image, place=f"{place}.image_url")
            return media_from_url("image", image.url, place=f"{place}.image_url.url")
        case AudioContent(input_audio=audio):
            media_type = f"audio/{audio.format}" if audio.format else None
            return media_from_base64(
                "audio", media_type, audio.data, place=f"{place}.input_audio.data"
            )
        case FileContent(file=file):
            data_place = f"{place}.file.file_data"
            if file.file_data is None:
                raise refuse(data_place, "this field is required: no files are stored here")
            return media_from_url("file", file.file_data, place=data_place)


def tools_from(wire: list[WireTool] | None) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """Return the functions, and the JSON paths of tools of other types, which are left out.

    Raises:
        InvalidRequest: a tool of type function comes without one.
    """
    tools: list[Tool] = []
    ignored: list[str] = []
    for place, tool in enumerate(wire or ()):
        if tool.type != "function":
            ignored.append(f"tools[{place}]")
        elif tool.function is None:
            raise refuse(f"tools[{place}].function", "this field is required")
        else:
            function = tool.function
            tools.append(
                Tool(
                    name=function.name,
                    description=function.description,
                    parameters=function.parameters,
                    strict=bool(function.strict),
                )
            )
    return tuple(tools), tuple(ignored)


def tool_choice_from(wire: WireToolChoice | None, tools: tuple[Tool, ...]) -> ToolChoice:
    """Return the canonical choice.

    Raises:
        InvalidRequest: it names, or requires, a tool that is not among `tools`.
    """
    if wire is None:
        return ToolChoice()
    if isinstance(wire, NamedChoice):
        return named_choice(wire.function.name, tools, place="tool_choice.function.name")
    if wire == "required" and not tools:
        raise refuse("tool_choice", "a tool is required, but there are no tools")
    return ToolChoice(mode=wire)
