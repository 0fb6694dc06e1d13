"""A canonical conversation, written as a Messages body in the ways of clients, is read back."""

import base64
import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import (
    ChatPrompt,
    MediaPart,
    Message,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.ids import RequestId
from tests.unit.cortex_core.dialects.event_streams import json_values, names
from tests.unit.cortex_core.dialects.places import without_places

ANTHROPIC = AnthropicMessages()

texts = st.builds(TextPart, st.text(max_size=8))
media = st.builds(
    MediaPart,
    kind=st.sampled_from(["image", "file"]),
    media_type=st.sampled_from(["image/png", "application/pdf"]),
    data=st.binary(min_size=1, max_size=6),
) | st.builds(
    MediaPart, kind=st.sampled_from(["image", "file"]), url=st.just("https://example.org/a")
)
thoughts = st.builds(
    ReasoningPart, st.text(min_size=1, max_size=8), st.none() | st.text(min_size=1, max_size=8)
)
objects = st.dictionaries(st.text(max_size=4), json_values, max_size=3)
calls = st.builds(
    ToolCallPart,
    names,
    names,
    objects.map(lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))),
)
results = st.builds(
    ToolResultPart,
    names,
    st.lists(texts | media, max_size=3).map(tuple),
    is_error=st.booleans(),
)


def turn(role: str, parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Message]:
    content = st.lists(parts, min_size=1, max_size=3).map(tuple)
    return st.builds(Message, role=st.just(role), content=content)


turns = st.one_of(
    turn("system", texts),
    turn("user", texts | media),
    turn("assistant", texts | thoughts | calls),
    results.map(lambda result: Message(role="tool", content=(result,))),
)
tools = st.builds(Tool, names, st.none() | st.text(max_size=8), objects, st.booleans())


@st.composite
def prompts(draw: st.DrawFn) -> ChatPrompt:
    offered = tuple(draw(st.lists(tools, max_size=3, unique_by=lambda tool: tool.name)))
    named = [ToolChoice("named", tool.name) for tool in offered]
    required = [ToolChoice("required")] if offered else []
    return ChatPrompt(
        messages=tuple(draw(st.lists(turns, min_size=1, max_size=6))),
        tools=offered,
        tool_choice=draw(
            st.sampled_from([ToolChoice(), ToolChoice("none"), *required, *named]),
        ),
    )


def block(part: Any) -> dict[str, Any]:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case MediaPart(kind=kind, media_type=media_type, data=data, url=url):
            source: dict[str, Any] = {"type": "url", "url": url}
            if data is not None:
                coded = base64.b64encode(data).decode()
                source = {"type": "base64", "media_type": media_type, "data": coded}
            return {"type": "image" if kind == "image" else "document", "source": source}
        case ReasoningPart(text=text, signature=signature):
            return {"type": "thinking", "thinking": text, "signature": signature or ""}
        case ToolCallPart(id=call_id, name=name, arguments=arguments):
            return {
                "type": "tool_use",
                "id": call_id,
                "name": name,
                "input": json.loads(arguments),
            }
        case ToolResultPart(call_id=call_id, content=content, is_error=is_error):
            inner = [block(each) for each in content]
            return {
                "type": "tool_result",
                "tool_use_id": call_id,
                "content": inner,
                "is_error": is_error,
            }
    raise AssertionError(part)


def wire_messages(draw: st.DrawFn, messages: list[Message]) -> list[dict[str, Any]]:
    """One message of the wire for each turn, or for several that may stand in one."""
    wire: list[dict[str, Any]] = []
    before = ""
    for message in messages:
        role = "user" if message.role == "tool" else message.role
        content = [block(part) for part in message.content]
        shares = {before, message.role} in ({"tool"}, {"tool", "user"})
        if shares and draw(st.booleans()):
            wire[-1]["content"] += content
        else:
            wire.append({"role": role, "content": content})
        before = message.role
    for each in wire:
        plain = len(each["content"]) == 1 and each["content"][0].get("text")
        if plain and draw(st.booleans()):
            each["content"] = plain
    return wire


@st.composite
def written(draw: st.DrawFn) -> tuple[ChatPrompt, dict[str, Any]]:
    prompt = draw(prompts())
    head = list(itertools.takewhile(lambda each: each.role == "system", prompt.messages[:1]))
    if len(head) == len(prompt.messages) or not draw(st.booleans()):
        head = []
    body: dict[str, Any] = {
        "model": "m",
        "max_tokens": 9,
        "messages": wire_messages(draw, list(prompt.messages[len(head) :])),
    }
    if head:
        body["system"] = [block(part) for part in head[0].content]
    if prompt.tools:
        body["tools"] = [
            {"name": tool.name, "description": tool.description, "strict": tool.strict}
            | {"input_schema": tool.parameters}
            for tool in prompt.tools
        ]
    kinds = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}
    body["tool_choice"] = {"type": kinds[prompt.tool_choice.mode]}
    if prompt.tool_choice.name is not None:
        body["tool_choice"]["name"] = prompt.tool_choice.name
    return prompt, body


@given(made=written())
def test_a_conversation_survives_being_written_and_read(
    made: tuple[ChatPrompt, dict[str, Any]],
) -> None:
    prompt, body = made
    read = ANTHROPIC.decode_request(json.dumps(body).encode(), request_id=RequestId("r"))
    assert read.ignored == ()
    got = read.request.prompt
    assert isinstance(got, ChatPrompt)
    assert without_places(got).messages == prompt.messages
    assert got.tools == prompt.tools
    assert got.tool_choice == prompt.tool_choice
    last = prompt.messages[-1]
    assert got.continue_final_message <= (last.role == "assistant")
