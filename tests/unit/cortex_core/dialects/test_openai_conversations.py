"""A conversation in OpenAI's form and back is the same conversation."""

import base64
import json
import string
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_core.canonical import (
    ChatPrompt,
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
from cortex_core.dialects.openai_chat import OpenAIChat
from tests.unit.cortex_core.dialects.event_streams import arguments_texts, json_values, names
from tests.unit.cortex_core.dialects.places import without_places
from tests.unit.cortex_core.dialects.sdk_clients import decode

CHAT = OpenAIChat()
texts = st.text(max_size=12)
subtypes = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=6)
blobs = st.binary(min_size=1, max_size=12)
urls = st.sampled_from(["http://a.test/b.png", "https://a.test/?q=1"])

text_parts = st.builds(TextPart, texts)
media_parts = (
    st.builds(MediaPart, st.sampled_from(["image", "file"]), subtypes.map("x/{}".format), blobs)
    | st.builds(MediaPart, st.just("audio"), subtypes.map("audio/{}".format), blobs)
    | st.builds(MediaPart, st.sampled_from(["image", "file"]), url=urls)
)
said_parts = st.lists(text_parts | media_parts, max_size=3)
calls = st.builds(ToolCallPart, names, names, arguments_texts)


@st.composite
def assistants(draw: st.DrawFn) -> Message:
    thought = draw(st.none() | st.text(min_size=1, max_size=9))
    parts: list[Part] = [] if thought is None else [ReasoningPart(thought)]
    parts += draw(said_parts)
    parts += draw(st.lists(calls, max_size=2))
    return Message("assistant", tuple(parts), draw(st.none() | names))


messages = (
    st.builds(
        Message,
        st.sampled_from(["system", "developer", "user"]),
        said_parts.map(tuple),
        st.none() | names,
    )
    | assistants()
    | st.builds(
        lambda call_id, parts, name: Message("tool", (ToolResultPart(call_id, parts),), name),
        names,
        said_parts.map(tuple),
        st.none() | names,
    )
)
tools = st.builds(
    Tool,
    names,
    st.none() | texts,
    st.none() | st.dictionaries(texts, json_values, max_size=2),
    st.booleans(),
)


@st.composite
def prompts(draw: st.DrawFn) -> ChatPrompt:
    offered = tuple(draw(st.lists(tools, max_size=3)))
    choices = [ToolChoice(), ToolChoice("none")]
    if offered:
        named = draw(st.sampled_from(offered)).name
        choices += [ToolChoice("required"), ToolChoice("named", named)]
    return ChatPrompt(
        messages=tuple(draw(st.lists(messages, min_size=1, max_size=4))),
        tools=offered,
        tool_choice=draw(st.sampled_from(choices)),
        parallel_tool_calls=draw(st.booleans()),
        reasoning_effort=draw(st.none() | st.sampled_from(["minimal", "low", "high"])),
        template_kwargs=draw(st.dictionaries(names, json_values, max_size=2)),
    )


def part_json(part: Any) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    data = "" if part.data is None else base64.b64encode(part.data).decode()
    url = part.url or f"data:{part.media_type};base64,{data}"
    match part.kind:
        case "image":
            return {"type": "image_url", "image_url": {"url": url}}
        case "file":
            return {"type": "file", "file": {"file_data": url}}
    sound = {"data": data, "format": part.media_type.removeprefix("audio/")}
    return {"type": "input_audio", "input_audio": sound}


def message_json(message: Message) -> dict[str, Any]:
    written: dict[str, Any] = {"role": message.role, "content": [], "name": message.name}
    for part in message.content:
        match part:
            case ReasoningPart(text=text):
                written["reasoning_content"] = text
            case ToolCallPart(id=call_id, name=name, arguments=arguments):
                function = {"name": name, "arguments": arguments}
                call = {"id": call_id, "type": "function", "function": function}
                written.setdefault("tool_calls", []).append(call)
            case ToolResultPart(call_id=call_id, content=content):
                written |= {"tool_call_id": call_id, "content": [*map(part_json, content)]}
            case _:
                written["content"].append(part_json(part))
    return written


def tool_json(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
    return {"type": "function", "function": function}


def choice_json(choice: ToolChoice) -> Any:
    if choice.mode == "named":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def body_json(prompt: ChatPrompt) -> dict[str, Any]:
    return {
        "messages": [message_json(message) for message in prompt.messages],
        "tools": [tool_json(tool) for tool in prompt.tools],
        "tool_choice": choice_json(prompt.tool_choice),
        "parallel_tool_calls": prompt.parallel_tool_calls,
        "reasoning_effort": prompt.reasoning_effort,
        "chat_template_kwargs": prompt.template_kwargs,
    }


def read(body: dict[str, Any]) -> ChatPrompt:
    prompt = decode(CHAT, **body).request.prompt
    assert isinstance(prompt, ChatPrompt)
    return without_places(prompt)


@settings(max_examples=80)
@given(prompt=prompts())
def test_a_conversation_survives_the_way_there_and_back(prompt: ChatPrompt) -> None:
    assert read(body_json(prompt)) == prompt


@settings(max_examples=30)
@given(prompt=prompts())
def test_text_alone_may_stand_without_parts(prompt: ChatPrompt) -> None:
    body = body_json(prompt)
    for message in body["messages"]:
        if len(message["content"]) == 1 and message["content"][0]["type"] == "text":
            message["content"] = message["content"][0]["text"]
        elif not message["content"]:
            message["content"] = None
    body = json.loads(json.dumps(body))
    assert read(body) == prompt
