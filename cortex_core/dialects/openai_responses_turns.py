"""Items of `/v1/responses` as canonical turns. Wire types follow `openai.types.responses`."""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

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
from cortex_core.dialects.media import media_from_base64, media_from_url
from cortex_core.dialects.openai_responses_items import head_of
from cortex_core.dialects.openai_wire import AudioContent
from cortex_core.dialects.reading import read_value, refuse

_NO_FILES: Final = "no files are stored here; send the data itself"


class InputText(msgspec.Struct, frozen=True, tag="input_text"):
    text: str


class OutputText(msgspec.Struct, frozen=True, tag="output_text"):
    text: str


class PlainText(msgspec.Struct, frozen=True, tag="text"):
    text: str


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    refusal: str


class InputImage(msgspec.Struct, frozen=True, tag="input_image"):
    image_url: str | None = None


class InputFile(msgspec.Struct, frozen=True, tag="input_file"):
    file_data: str | None = None
    file_url: str | None = None


Content = InputText | OutputText | PlainText | Refusal | InputImage | InputFile | AudioContent


class Thought(msgspec.Struct, frozen=True):
    text: str


class MessageItem(msgspec.Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Content]


class CallItem(msgspec.Struct, frozen=True):
    call_id: str
    name: str
    arguments: str | None = None


class CallOutputItem(msgspec.Struct, frozen=True):
    call_id: str
    output: str | list[Content] | None = None


class ReasoningItem(msgspec.Struct, frozen=True):
    summary: list[Thought] | None = None
    content: list[Thought] | None = None


class Turns:
    """Canonical turns in the making. What an assistant says without interruption is one turn.

    Attributes:
        messages: the turns so far; `close` adds the last one.
        ignored: JSON paths of items that were left out.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.ignored: list[str] = []
        self._said: list[Part] = []

    def add(self, item: JsonObject, place: str) -> None:
        """Add one item, which is no reference.

        Raises:
            InvalidRequest: a field under `place` cannot be read.
        """
        match head_of(item, place).kind:
            case "message":
                self._add_message(read_value(item, MessageItem, place=place), place)
            case "function_call":
                call = read_value(item, CallItem, place=place)
                self._said.append(ToolCallPart(call.call_id, call.name, call.arguments or "{}"))
            case "function_call_output":
                self._add_output(read_value(item, CallOutputItem, place=place), place)
            case "reasoning":
                self._add_reasoning(read_value(item, ReasoningItem, place=place), place)
            case _:
                self.ignored.append(place)

    def close(self) -> None:
        """End the turn of an assistant that is open, if one is."""
        if self._said:
            self.messages.append(Message(role="assistant", content=tuple(self._said)))
            self._said.clear()

    def _add_message(self, item: MessageItem, place: str) -> None:
        parts = _parts(item.content, f"{place}.content")
        if item.role == "assistant":
            self._said.extend(parts)
        else:
            self.close()
            self.messages.append(Message(role=item.role, content=tuple(parts)))

    def _add_output(self, item: CallOutputItem, place: str) -> None:
        self.close()
        result = ToolResultPart(item.call_id, tuple(_parts(item.output, f"{place}.output")))
        self.messages.append(Message(role="tool", content=(result,)))

    def _add_reasoning(self, item: ReasoningItem, place: str) -> None:
        # What is encrypted is another server's; thoughts of ours stand in the clear.
        text = "\n\n".join(thought.text for thought in item.content or item.summary or ())
        if text:
            self._said.append(ReasoningPart(text))
        else:
            self.ignored.append(place)


def _parts(content: str | list[Content] | None, place: str) -> Iterator[TextPart | MediaPart]:
    if isinstance(content, str):
        yield TextPart(content)
        return
    for index, part in enumerate(content or ()):
        yield _part(part, f"{place}[{index}]")


def _part(part: Content, place: str) -> TextPart | MediaPart:
    match part:
        case InputText(text=text) | OutputText(text=text) | PlainText(text=text):
            return TextPart(text)
        case Refusal(refusal=text):
            return TextPart(text)
        case InputImage(image_url=url):
            if url is None:
                raise refuse(f"{place}.image_url", f"this field is required: {_NO_FILES}")
            return media_from_url("image", url, place=f"{place}.image_url")
        case InputFile(file_data=str() as data):
            return media_from_url("file", data, place=f"{place}.file_data")
        case InputFile(file_url=str() as url):
            return media_from_url("file", url, place=f"{place}.file_url")
        case InputFile():
            raise refuse(f"{place}.file_data", f"this field is required: {_NO_FILES}")
        case AudioContent(input_audio=audio):
            media_type = f"audio/{audio.format}" if audio.format else None
            data_place = f"{place}.input_audio.data"
            return media_from_base64("audio", media_type, audio.data, place=data_place)
