"""Messages of an OpenAI chat request in their canonical form."""

from collections.abc import Iterator

from cortex_core.canonical import (
    JsonObject,
    MediaPart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from cortex_core.dialects.fields import check_num_parts
from cortex_core.dialects.media import media_from_base64, media_from_url
from cortex_core.dialects.openai_wire import (
    AudioContent,
    CalledFunction,
    Content,
    FileContent,
    ImageContent,
    RefusalContent,
    TextContent,
    ToolCall,
    WireMessage,
)
from cortex_core.dialects.reading import refuse, write_json

CallIds = dict[str, str]
"""Name of a function to the id of its last call that came without one (`function_call`)."""


def messages_from(wire: list[WireMessage]) -> tuple[Message, ...]:
    """Return the conversation as the client ordered it.

    Raises:
        InvalidRequest: there are no messages, too many, or one cannot stand as it is.
    """
    if not wire:
        raise refuse("messages", "expected at least one message")
    check_num_parts(sum(map(_num_parts, wire)))
    called: CallIds = {}
    return tuple(_message(turn, f"messages[{place}]", called) for place, turn in enumerate(wire))


def _num_parts(wire: WireMessage) -> int:
    content = len(wire.content) if isinstance(wire.content, list) else 1
    return max(1, content) + len(wire.tool_calls or ())


def _message(wire: WireMessage, place: str, called: CallIds) -> Message:
    if wire.role == "tool":
        if wire.tool_call_id is None:
            raise refuse(
                f"{place}.tool_call_id", "this field is required in a message of role tool"
            )
        return _tool_result(wire, wire.tool_call_id, place, name=wire.name)
    if wire.role == "function":
        return _tool_result(wire, _called_id(wire.name, place, called), place)
    if wire.role != "assistant":
        _refuse_calls(wire, place)
    return Message(role=wire.role, content=tuple(_parts(wire, place, called)), name=wire.name)


def _refuse_calls(wire: WireMessage, place: str) -> None:
    if wire.tool_calls:
        raise refuse(f"{place}.tool_calls", "only assistant messages call tools")
    if wire.function_call is not None:
        raise refuse(f"{place}.function_call", "only assistant messages call functions")


def _called_id(name: str | None, place: str, called: CallIds) -> str:
    if name is None:
        raise refuse(f"{place}.name", "this field is required in a message of role function")
    if name not in called:
        raise refuse(f"{place}.name", f"no message before it calls a function {name!r}")
    return called[name]


def _parts(wire: WireMessage, place: str, called: CallIds) -> Iterator[Part]:
    if wire.audio is not None:
        raise refuse(f"{place}.audio", "not supported: no audio is stored here")
    if wire.reasoning_content:
        yield ReasoningPart(text=wire.reasoning_content)
    yield from _content(wire.content, f"{place}.content")
    if wire.refusal:
        yield TextPart(wire.refusal)
    for number, call in enumerate(wire.tool_calls or ()):
        yield _tool_call(call, f"{place}.tool_calls[{number}]")
    if wire.function_call is not None:
        call_id = called[wire.function_call.name] = f"call_of_{place}"
        yield _call_part(call_id, wire.function_call)


def _tool_call(call: ToolCall, place: str) -> ToolCallPart:
    if call.custom is not None:
        raise refuse(f"{place}.custom", "not supported: only functions are called here")
    if call.function is None:
        raise refuse(f"{place}.function", "this field is required")
    return _call_part(call.id, call.function)


def _call_part(call_id: str, function: CalledFunction) -> ToolCallPart:
    return ToolCallPart(call_id, function.name, _arguments(function.arguments))


def _arguments(arguments: str | JsonObject | None) -> str:
    # Some clients send the parsed object back instead of the text they were given.
    if isinstance(arguments, dict):
        return write_json(arguments).decode()
    return arguments or "{}"


def _tool_result(
    wire: WireMessage, call_id: str, place: str, *, name: str | None = None
) -> Message:
    content = tuple(_content(wire.content, f"{place}.content"))
    return Message(role="tool", content=(ToolResultPart(call_id, content),), name=name)


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
