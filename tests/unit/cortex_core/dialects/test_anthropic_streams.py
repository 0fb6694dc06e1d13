"""Streams and whole answers of the Anthropic dialect, read by the anthropic SDK."""

import json
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from cortex_core.canonical import (
    Completed,
    Event,
    Failed,
    Finished,
    Loading,
    Ping,
    ReasoningDelta,
    ReasoningPart,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.dialects.base import Decoded
from cortex_core.errors import DeviceFailed, ErrorInfo, ProtocolError
from tests.unit.cortex_core.dialects.event_streams import (
    MODEL,
    REQUEST_ID,
    Said,
    Stream,
    started,
    streams,
)
from tests.unit.cortex_core.dialects.sdk_clients import (
    MESSAGES,
    anthropic_client,
    decode,
    frames,
    recorder,
    streamed,
    whole,
)

ANTHROPIC = AnthropicMessages()
MAX_TOKENS = 50_000
STOP = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "cancelled": "max_tokens",
}


def check_message(message: Any, said: Said, usage: Usage) -> None:
    content = message.content
    assert joined(content, "text", "text") == said.joined("text")
    assert joined(content, "thinking", "thinking") == said.joined("reasoning")
    assert all(block.signature for block in content if block.type == "thinking")
    assert [
        (block.id, block.name, block.input) for block in content if block.type == "tool_use"
    ] == [(call.id, call.name, json.loads(call.arguments)) for call in said.calls]
    assert message.stop_sequence == said.stop_sequence
    expected = "stop_sequence" if said.stop_sequence is not None else STOP[said.reason]
    if said.reason == "length" and usage.completion_tokens < MAX_TOKENS:
        expected = "model_context_window_exceeded"
    assert message.stop_reason == expected
    assert message.usage.input_tokens == usage.prompt_tokens - usage.cached_tokens
    assert message.usage.cache_read_input_tokens == usage.cached_tokens
    assert message.usage.output_tokens == usage.completion_tokens


def joined(content: Any, kind: str, key: str) -> str:
    return "".join(getattr(block, key) for block in content if block.type == kind)


def asked(**fields: Any) -> Decoded:
    return decode(ANTHROPIC, max_tokens=MAX_TOKENS, **fields)


def read_strictly(model: Any, data: Any) -> Any:
    """What pydantic makes of `data`; members that the SDK does not know fail the test."""
    read = TypeAdapter(model).validate_python(data)
    assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == data
    assert unknown_members(read) == []
    return read


def unknown_members(read: Any) -> list[str]:
    if isinstance(read, list):
        return [name for each in read for name in unknown_members(each)]
    if not isinstance(read, BaseModel):
        return []
    inner = [name for value in vars(read).values() for name in unknown_members(value)]
    return [*(read.model_extra or {}), *inner]


@settings(max_examples=40)
@given(stream=streams(max_choices=1), chunk_bytes=st.integers(1, 400))
def test_the_sdk_accumulates_a_stream_to_what_was_said(stream: Stream, chunk_bytes: int) -> None:
    body = streamed(ANTHROPIC, asked(stream=True), stream.events)
    client = anthropic_client(recorder(body, stream=True, chunk_bytes=chunk_bytes))
    with client.messages.stream(model=MODEL, messages=MESSAGES, max_tokens=9) as events:
        message = events.get_final_message()
    assert message.id == f"msg_{REQUEST_ID}"
    assert message.model == MODEL
    check_message(message, stream.said[0], stream.usage)


@settings(max_examples=40)
@given(stream=streams(max_choices=1))
def test_the_sdk_reads_a_whole_answer_as_what_was_said(stream: Stream) -> None:
    body = whole(ANTHROPIC, asked(), stream.events)
    client = anthropic_client(recorder(body))
    message = client.messages.create(model=MODEL, messages=MESSAGES, max_tokens=9)
    check_message(message, stream.said[0], stream.usage)


EDITS = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}


@settings(max_examples=40)
@given(stream=streams(max_choices=1), edits=st.booleans(), omitted=st.booleans())
def test_every_event_and_answer_is_one_that_the_sdk_knows(
    stream: Stream, edits: bool, omitted: bool
) -> None:
    decoded = asked(
        context_management=EDITS if edits else None,
        thinking={"type": "adaptive", "display": "omitted" if omitted else None},
    )
    event_type: Any = BetaRawMessageStreamEvent if edits else RawMessageStreamEvent
    for name, data in frames(streamed(ANTHROPIC, decoded, stream.events)):
        if name != "ping":
            read_strictly(event_type, data)
    message = json.loads(whole(ANTHROPIC, decoded, stream.events))
    read = read_strictly(BetaMessage if edits else Message, message)
    if edits:
        assert read.context_management.applied_edits == []


@settings(max_examples=40)
@given(stream=streams(max_choices=1))
def test_a_thought_that_is_not_shown_comes_back_with_its_signature(stream: Stream) -> None:
    decoded = asked(thinking={"type": "enabled", "budget_tokens": 1024, "display": "omitted"})
    body = streamed(ANTHROPIC, decoded, stream.events)
    assert b"thinking_delta" not in body
    client = anthropic_client(recorder(body, stream=True))
    with client.messages.stream(model=MODEL, messages=MESSAGES, max_tokens=9) as events:
        message = events.get_final_message()
    assert json.loads(whole(ANTHROPIC, decoded, stream.events))["content"] == [
        block.model_dump(exclude_unset=True) for block in message.content
    ]
    turns = [*MESSAGES, message.to_param(), *MESSAGES]
    again = decode(ANTHROPIC, messages=json.loads(json.dumps(turns, default=BaseModel.model_dump)))
    parts = [part for turn in again.request.prompt.messages for part in turn.content]
    thoughts = [part.text for part in parts if isinstance(part, ReasoningPart)]
    assert "".join(thoughts) == stream.said[0].joined("reasoning")


@settings(max_examples=40)
@given(stream=streams(max_choices=1))
def test_a_stream_keeps_to_the_form_of_anthropic(stream: Stream) -> None:
    sent = frames(streamed(ANTHROPIC, decode(ANTHROPIC, stream=True), stream.events))
    assert all(isinstance(data, dict) and name == data["type"] for name, data in sent)
    shown = [data for name, data in sent if isinstance(data, dict) and name != "ping"]
    kinds = [data["type"] for data in shown]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    usage = shown[0]["message"]["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == stream.usage.prompt_tokens
    assert_blocks_follow_each_other(shown[1:-2])


def assert_blocks_follow_each_other(shown: list[dict[str, Any]]) -> None:
    open_block: dict[str, Any] | None = None
    next_index = 0
    last_delta = None
    for data in shown:
        assert data["index"] == next_index
        match data["type"]:
            case "content_block_start":
                assert open_block is None
                open_block = data["content_block"]
                last_delta = None
            case "content_block_delta":
                assert open_block is not None
                assert last_delta != "signature_delta"
                last_delta = data["delta"]["type"]
            case "content_block_stop":
                assert open_block is not None
                if open_block["type"] == "thinking":
                    assert last_delta == "signature_delta"
                open_block = None
                next_index += 1
    assert open_block is None


@pytest.mark.parametrize(
    ("info", "status_error", "kind"),
    [
        (ErrorInfo("device_failed", "cannot go on: gone"), "ServiceUnavailableError", "api_error"),
        (
            ErrorInfo("service_unavailable", "cannot go on: full", retry_after_s=2),
            "OverloadedError",
            "overloaded_error",
        ),
    ],
)
def test_a_failure_in_a_stream_raises_in_the_sdk(
    info: ErrorInfo, status_error: str, kind: str
) -> None:
    events = [started(), TextDelta(0, "a"), Failed(info)]
    body = streamed(ANTHROPIC, decode(ANTHROPIC, stream=True), events)
    name, data = frames(body)[-1]
    assert name == "error"
    assert isinstance(data, dict)
    assert data["error"] == {"type": kind, "message": info.message}
    client = anthropic_client(recorder(body, stream=True))
    with (
        pytest.raises(anthropic.APIStatusError, match="cannot go on"),
        client.messages.stream(model=MODEL, messages=MESSAGES, max_tokens=9) as stream,
    ):
        stream.until_done()
    reply = ANTHROPIC.encode_error(info, request_id=REQUEST_ID)
    with pytest.raises(getattr(anthropic, status_error, anthropic.APIStatusError)):
        anthropic_client(recorder(reply)).messages.create(
            model=MODEL, messages=MESSAGES, max_tokens=9
        )


def test_a_failure_without_a_stream_is_raised_as_it_was() -> None:
    error = ErrorInfo("device_failed", "cannot go on: gone")
    with pytest.raises(DeviceFailed, match="cannot go on: gone"):
        whole(ANTHROPIC, decode(ANTHROPIC), [started(), TextDelta(0, "a"), Failed(error)])


def test_waiting_is_a_ping_before_the_start_and_after_it() -> None:
    waits: list[Event] = [Ping(), Loading("queued")]
    ping = b'event: ping\ndata: {"type":"ping"}\n\n'
    said = ping + b": loading stage=queued\n\n" + ping
    body = streamed(ANTHROPIC, asked(stream=True), [*waits, started(), *waits])
    assert body.startswith(said + b"event: message_start\n")
    assert body.endswith(said)


@pytest.mark.parametrize(
    ("completion_tokens", "reason"),
    [(MAX_TOKENS, "max_tokens"), (MAX_TOKENS - 1, "model_context_window_exceeded")],
)
def test_a_full_context_is_told_from_the_requests_own_limit(
    completion_tokens: int, reason: str
) -> None:
    events: list[Event] = [
        started(),
        TextDelta(0, "a"),
        Finished(0, "length"),
        Completed(Usage(3, completion_tokens)),
    ]
    assert json.loads(whole(ANTHROPIC, asked(), events))["stop_reason"] == reason
    data = frames(streamed(ANTHROPIC, asked(), events))[-2][1]
    assert isinstance(data, dict)
    assert data["delta"]["stop_reason"] == reason


@pytest.mark.parametrize(
    "events",
    [
        [TextDelta(0, "a")],
        [ReasoningDelta(0, "a")],
        [started(), TextDelta(1, "a")],
        [started(), ToolCallDelta(0, 0, "{}")],
        [started(), Finished(1, "stop")],
        [started(), Completed(Usage(1, 1))],
        [
            started(),
            ToolCallStarted(0, 0, "a", "f"),
            ToolCallStarted(0, 1, "b", "f"),
            ToolCallDelta(0, 0, "{}"),
        ],
    ],
)
def test_events_out_of_order_are_a_protocol_error(events: list[Event]) -> None:
    with pytest.raises(ProtocolError):
        streamed(ANTHROPIC, decode(ANTHROPIC, stream=True), events)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", {}),
        ('{"a": 1}', {"a": 1}),
        ('{"a": 1, "b', {"arguments": '{"a": 1, "b'}),
        ("[1]", {"arguments": "[1]"}),
    ],
)
def test_the_input_of_a_whole_call_is_always_an_object(arguments: str, expected: Any) -> None:
    events = [
        started(),
        ToolCallStarted(0, 0, "call_1", "look"),
        ToolCallDelta(0, 0, arguments),
        Finished(0, "length"),
        Completed(Usage(3, 2)),
    ]
    message = json.loads(whole(ANTHROPIC, decode(ANTHROPIC, max_tokens=2), events))
    assert message["content"][0]["input"] == expected
    assert message["stop_reason"] == "max_tokens"


def test_an_answer_that_says_nothing_has_no_blocks() -> None:
    events: list[Event] = [started(), TextDelta(0, ""), Finished(0, "stop"), Completed(Usage(3, 0))]
    assert json.loads(whole(ANTHROPIC, decode(ANTHROPIC), events))["content"] == []
    names = [name for name, _ in frames(streamed(ANTHROPIC, decode(ANTHROPIC), events))]
    assert names == ["message_start", "message_delta", "message_stop"]


def test_the_end_corrects_what_the_start_said_of_the_cache() -> None:
    events: list[Event] = [
        started(prompt_tokens=30, cached_tokens=4),
        TextDelta(0, "x"),
        Finished(0, "stop"),
        Completed(Usage(30, 1, cached_tokens=24)),
    ]
    client = anthropic_client(recorder(streamed(ANTHROPIC, decode(ANTHROPIC), events), stream=True))
    with client.messages.stream(model=MODEL, messages=MESSAGES, max_tokens=9) as stream:
        usage = stream.get_final_message().usage
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (6, 24)


def test_thinking_tokens_are_told_apart() -> None:
    events: list[Event] = [
        started(),
        ReasoningDelta(0, "hm"),
        Finished(0, "stop"),
        Completed(Usage(3, 5, reasoning_tokens=4)),
    ]
    body = whole(ANTHROPIC, decode(ANTHROPIC), events)
    message = anthropic_client(recorder(body)).messages.create(
        model=MODEL, messages=MESSAGES, max_tokens=9
    )
    assert message.usage.output_tokens == 5
    assert message.usage.output_tokens_details.thinking_tokens == 4
