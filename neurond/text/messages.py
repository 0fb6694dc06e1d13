"""Canonical messages to the dictionaries that chat templates read. Pure."""

import json
from hashlib import blake2b
from typing import Final

import msgspec

from cortex_core.canonical import (
    ChatPrompt,
    JsonObject,
    MediaPart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from cortex_core.decoding import UNDECODABLE
from cortex_core.errors import InvalidRequest, WrongModality
from neurond.text.image_marks import FoundImage, image_mark

TemplateMessage = JsonObject
SHORT_ID_CHARS: Final = 9
"""Mistral's templates take ids of so many letters and digits, and refuse others."""

END_MARK: Final = "\ue000end of the last turn\ue000"
"""Put behind the text of a turn that is to be continued: what a template writes after it is cut
off. The frame is a character for private use, so that no text has it by chance."""


def template_messages(
    prompt: ChatPrompt, images: list[FoundImage] | None = None
) -> list[TemplateMessage]:
    """Return the conversation as templates written for transformers expect it.

    Text of one turn is one string, its parts on lines of their own; call arguments are parsed.

    Args:
        prompt: the conversation.
        images: of a model that takes them, a list to which they are added. In the text stands
            `image_mark` of their place in it. None where the model takes text only.

    Raises:
        WrongModality: a turn carries what the model does not take.
        InvalidRequest: an image is only pointed at.
    """
    return [
        rendered
        for place, message in enumerate(prompt.messages)
        for rendered in _render(message, f"messages[{place}]", images)
    ]


def reasoning_variables(prompt: ChatPrompt) -> JsonObject:
    """Return what templates read to tell whether, and how hard, the model is to think.

    Families have different names for the same switch; who names an effort wants thoughts, but for
    `none`.
    """
    effort = prompt.reasoning_effort
    thinks = prompt.template_kwargs.get("enable_thinking")
    if thinks is None and effort is not None:
        thinks = effort != "none"
    variables: JsonObject = {}
    if effort is not None:
        variables["reasoning_effort"] = effort
    if thinks is not None:
        variables |= {"enable_thinking": thinks, "thinking": thinks}
    return variables


def template_tools(prompt: ChatPrompt) -> list[JsonObject] | None:
    """Return the tools, or None where the model is to know of none."""
    if not prompt.tools or prompt.tool_choice.mode == "none":
        return None
    return [_tool(tool) for tool in prompt.tools]


def with_short_ids(messages: list[TemplateMessage]) -> list[TemplateMessage]:
    """Return the conversation with ids of calls as Mistral's templates demand them."""
    return [_with_short_ids(message) for message in messages]


def _with_short_ids(message: TemplateMessage) -> TemplateMessage:
    if "tool_call_id" in message:
        return {**message, "tool_call_id": _short_id(message["tool_call_id"])}
    calls = message.get("tool_calls")
    if not calls:
        return message
    return {**message, "tool_calls": [{**call, "id": _short_id(call["id"])} for call in calls]}


def _short_id(id_: str) -> str:
    return blake2b(id_.encode(), digest_size=SHORT_ID_CHARS).hexdigest()[:SHORT_ID_CHARS]


def with_object_arguments(messages: list[TemplateMessage]) -> list[TemplateMessage]:
    """Return the conversation with no arguments in place of those that are no object."""
    return [_with_object_arguments(message) for message in messages]


def _with_object_arguments(message: TemplateMessage) -> TemplateMessage:
    calls = message.get("tool_calls")
    if not calls or all(isinstance(_arguments(call), dict) for call in calls):
        return message
    return {
        **message,
        "tool_calls": [
            call
            if isinstance(_arguments(call), dict)
            else {**call, "function": {**call["function"], "arguments": {}}}
            for call in calls
        ],
    }


def with_text_arguments(messages: list[TemplateMessage]) -> list[TemplateMessage]:
    """Return the conversation with arguments of calls as text of JSON, as clients send them."""
    return [
        {**message, "tool_calls": [_with_text_arguments(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _with_text_arguments(call: JsonObject) -> JsonObject:
    arguments = _arguments(call)
    if isinstance(arguments, str):
        return call
    text = json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**call["function"], "arguments": text}}


def _arguments(call: JsonObject) -> object:
    return call["function"]["arguments"]


def with_end_marked(messages: list[TemplateMessage]) -> list[TemplateMessage]:
    """Return the conversation with `END_MARK` behind its last text."""
    last = messages[-1]
    return [*messages[:-1], {**last, "content": f"{last['content']}{END_MARK}"}]


def _render(message: Message, path: str, images: list[FoundImage] | None) -> list[TemplateMessage]:
    results = [part for part in message.content if isinstance(part, ToolResultPart)]
    if results:
        _content(message.content, path, None)  # nothing but results stands beside them
        return [_tool_result(part, message.name, path, images) for part in results]
    texts = _content(message.content, path, images)
    rendered: TemplateMessage = {
        "role": "system" if message.role == "developer" else message.role,
        "content": texts,
    }
    reasoning = [part.text for part in message.content if isinstance(part, ReasoningPart)]
    calls = [part for part in message.content if isinstance(part, ToolCallPart)]
    if reasoning:
        rendered["reasoning_content"] = "\n".join(reasoning)
        if not (texts and calls):
            # gpt-oss's name for it, whose template refuses it beside text and calls.
            rendered["thinking"] = rendered["reasoning_content"]
    if calls:
        rendered["tool_calls"] = [_tool_call(part) for part in calls]
    if message.name is not None:
        rendered["name"] = message.name
    return [rendered]


def _tool_result(
    part: ToolResultPart, name: str | None, path: str, images: list[FoundImage] | None
) -> TemplateMessage:
    text = _content(part.content, path, images)
    if part.is_error and not text.lower().startswith("error"):
        # Templates have no place for the flag; a model knows an error by its first word.
        text = f"Error: {text}" if text else "Error"
    rendered: TemplateMessage = {
        "role": "tool",
        "content": text,
        "tool_call_id": part.call_id,
    }
    if name is not None:
        rendered["name"] = name
    return rendered


def _tool_call(part: ToolCallPart) -> JsonObject:
    try:
        arguments = msgspec.json.decode(part.arguments.encode()) if part.arguments else {}
    except (*UNDECODABLE, UnicodeEncodeError):
        # What the model wrote was no JSON that can be read; the template gets it as it was.
        arguments = part.arguments
    return {
        "id": part.id,
        "type": "function",
        "function": {"name": part.name, "arguments": arguments},
    }


def _tool(tool: Tool) -> JsonObject:
    function: JsonObject = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


def _content(parts: tuple[Part, ...], path: str, images: list[FoundImage] | None) -> str:
    """Return the text of a turn, its parts on lines of their own, and marks of images between."""
    content = ""
    is_text = False
    for place, part in enumerate(parts):
        if isinstance(part, TextPart):
            content += f"\n{part.text}" if is_text else part.text
            is_text = True
        elif isinstance(part, MediaPart):
            image = _taken_image(part, part.place or f"{path}.content[{place}]", images)
            content += image_mark(len(image) - 1)
            is_text = False
    return content


def _taken_image(part: MediaPart, path: str, images: list[FoundImage] | None) -> list[FoundImage]:
    if images is None or part.kind != "image":
        takes = "text only" if images is None else "text and images"
        raise WrongModality(
            f"cannot read {path}: the model takes {takes}, and this is "
            f"{part.media_type or part.kind}",
            param=path,
        )
    if part.data is None:
        raise InvalidRequest(
            f"cannot read {path}: images are not fetched from URLs here; send its data in base64, "
            "as a data URL",
            param=path,
        )
    images.append(FoundImage(path, part))
    return images
