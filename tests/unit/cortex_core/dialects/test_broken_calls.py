"""A call that broke off, as the SDKs read it: nothing raises, nothing passes for a whole call."""

import json
import sys
from typing import Any, Final, Literal

import anthropic
import pytest

from cortex_core.canonical import (
    Completed,
    Event,
    Finished,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from tests.unit.cortex_core.dialects.event_streams import MODEL, started
from tests.unit.cortex_core.dialects.fixture_files import DIALECTS
from tests.unit.cortex_core.dialects.sdk_clients import (
    MESSAGES,
    anthropic_client,
    decode,
    openai_client,
    recorder,
    streamed,
    whole,
)

WHOLE: Final = '{"path": "a\\n\\u00e9", "lines": [1, {"x": true}], "content": "b"}'
FIRST: Final = '{"city": "Paris"}'
Reason = Literal["length", "cancelled"]
reasons = pytest.mark.parametrize("reason", ["length", "cancelled"])


def broken(end: int, reason: Reason) -> list[Event]:
    """A whole call, and one of which so many characters of the arguments came."""
    return [
        started(),
        TextDelta(0, "I write."),
        ToolCallStarted(0, 0, "call_1", "weather"),
        ToolCallDelta(0, 0, FIRST),
        ToolCallStarted(0, 1, "call_2", "write_file"),
        *(ToolCallDelta(0, 1, character) for character in WHOLE[:end]),
        ToolCallDelta(0, 1, ""),
        Finished(0, reason),
        Completed(Usage(7, 50)),
    ]


@reasons
@pytest.mark.parametrize("end", range(0, len(WHOLE), 3))
def test_openai_chat(end: int, reason: Reason) -> None:
    dialect = DIALECTS["openai_chat"]
    body = streamed(dialect, decode(dialect, stream=True), broken(end, reason))
    client = openai_client(recorder(body, stream=True))
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES) as chunks:
        chunks.until_done()
        answers: list[Any] = [chunks.current_completion_snapshot]
    client = openai_client(recorder(whole(dialect, decode(dialect), broken(end, reason))))
    answers.append(client.chat.completions.create(model=MODEL, messages=MESSAGES))
    for answer in answers:
        (choice,) = answer.choices
        assert choice.finish_reason == "length"
        first, second = choice.message.tool_calls
        assert first.function.arguments == FIRST
        assert second.function.arguments == WHOLE[:end]
        with pytest.raises(ValueError, match=r"."):
            json.loads(second.function.arguments)


@reasons
@pytest.mark.parametrize("end", range(0, len(WHOLE), 5))
def test_openai_responses(end: int, reason: Reason) -> None:
    dialect = DIALECTS["openai_responses"]
    body = streamed(dialect, decode(dialect, stream=True), broken(end, reason))
    with openai_client(recorder(body, stream=True)).responses.stream(
        model=MODEL, input="hi"
    ) as events:
        seen = list(events)
    client = openai_client(recorder(whole(dialect, decode(dialect), broken(end, reason))))
    read = client.responses.create(model=MODEL, input="hi")
    done: Any = [event for event in seen if event.type == "response.output_item.done"][-1]
    last: Any = seen[-1]
    for response in (last.response, read):
        assert response.status == "incomplete"
        _, first, second = response.output
        assert (first.status, first.arguments) == ("completed", FIRST)
        assert (second.status, second.arguments) == ("incomplete", WHOLE[:end])
    assert done.item.status == "incomplete"


@reasons
@pytest.mark.parametrize("end", range(0, len(WHOLE) - 1, 3))
def test_anthropic(end: int, reason: Reason) -> None:
    dialect = DIALECTS["anthropic_messages"]
    asked: dict[str, Any] = {"max_tokens": 50}
    body = streamed(dialect, decode(dialect, stream=True, **asked), broken(end, reason))
    client = anthropic_client(recorder(body, stream=True))
    with client.messages.stream(model=MODEL, messages=MESSAGES, max_tokens=50) as events:
        answers = [events.get_final_message()]
    client = anthropic_client(
        recorder(whole(dialect, decode(dialect, **asked), broken(end, reason)))
    )
    answers.append(client.messages.create(model=MODEL, messages=MESSAGES, max_tokens=50))
    for answer in answers:
        assert answer.stop_reason == "max_tokens"
        _, first, second = answer.content
        assert isinstance(first, anthropic.types.ToolUseBlock)
        assert isinstance(second, anthropic.types.ToolUseBlock)
        assert first.input == {"city": "Paris"}
        assert "content" not in second.input


@pytest.mark.parametrize("dialect", ["anthropic_messages", "openai_chat", "openai_responses"])
def test_arguments_that_can_just_be_read_are_told(dialect: str) -> None:
    limit = sys.getrecursionlimit()
    asked: dict[str, Any] = {"max_tokens": 50}
    for depth in (*range(limit - 80, limit + 1), 20_000):
        arguments = '{"a":' * depth + "1" + "}" * depth
        events = [
            started(),
            ToolCallStarted(0, 0, "call_1", "weather"),
            ToolCallDelta(0, 0, arguments),
            Finished(0, "tool_calls"),
            Completed(Usage(7, 50)),
        ]
        body = whole(DIALECTS[dialect], decode(DIALECTS[dialect], **asked), events)
        assert arguments in body.decode().replace("\\", "")
