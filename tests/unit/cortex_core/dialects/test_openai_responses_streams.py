"""Streams and whole answers of `/v1/responses`, read strictly by the openai SDK."""

import json
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from cortex_core.canonical import (
    Completed,
    Event,
    Failed,
    Finished,
    Loading,
    Message,
    Ping,
    ReasoningDelta,
    ReasoningPart,
    TextDelta,
    TextPart,
    TokenLogprob,
    ToolCallDelta,
    ToolCallPart,
    ToolCallStarted,
    Usage,
)
from cortex_core.dialects.openai_responses_stream import COMMENTS_PER_EVENT
from cortex_core.errors import (
    ContextLengthExceeded,
    DeviceFailed,
    InvalidRequest,
    Overloaded,
    ProtocolError,
    QueueFull,
)
from tests.unit.cortex_core.dialects.event_streams import (
    MODEL,
    REQUEST_ID,
    Said,
    Stream,
    started,
    streams,
)
from tests.unit.cortex_core.dialects.fixture_files import DIALECTS
from tests.unit.cortex_core.dialects.sdk_clients import (
    decode,
    frames,
    openai_client,
    recorder,
    streamed,
    whole,
)

RESPONSES = DIALECTS["openai_responses"]
SUMMARY = {"reasoning": {"summary": "auto"}}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
WHY_INCOMPLETE = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
    "cancelled": "max_output_tokens",
}


def calls_differ(stream: Stream) -> bool:
    ids = [call.id for call in stream.said[0].calls]
    return len(set(ids)) == len(ids)


one_choice = streams(max_choices=1).filter(calls_differ)
asked = st.sampled_from([{}, SUMMARY])


def sent(events: list[Event], **fields: Any) -> list[dict[str, Any]]:
    """The data of a stream's frames, each checked against the SDK's own type of it."""
    body = streamed(RESPONSES, decode(RESPONSES, stream=True, **fields), events)
    seen = []
    for name, data in frames(body):
        assert isinstance(data, dict)
        assert data["type"] == name
        EVENT.validate_python(data)
        seen.append(data)
    assert [each["sequence_number"] for each in seen] == list(range(len(seen)))
    return seen


def kinds(seen: list[dict[str, Any]]) -> list[str]:
    return [each["type"].removeprefix("response.") for each in seen]


def expected_items(said: Said) -> list[tuple[str, ...]]:
    """What was said as items: runs of one kind are one item, and empty ones none."""
    items: list[tuple[str, ...]] = []
    calls = iter(said.calls)
    for kind, text in said.order:
        if kind == "call":
            call = next(calls)
            items.append(("function_call", call.id, call.name, call.arguments))
        elif text:
            name = "message" if kind == "text" else "reasoning"
            if items and items[-1][0] == name:
                items[-1] = (name, items[-1][1] + text)
            else:
                items.append((name, text))
    return items


def read_items(output: list[Any]) -> list[tuple[str, ...]]:
    return [read_item(item) for item in output]


def read_item(item: Any) -> tuple[str, ...]:
    if item.type == "function_call":
        return (item.type, item.call_id, item.name, item.arguments)
    if item.type == "message":
        return (item.type, *(part.text for part in item.content))
    return (item.type, *(part.text for part in (*item.summary, *(item.content or ()))))


def check_end(response: Any, stream: Stream) -> None:
    said, usage = stream.said[0], stream.usage
    assert read_items(response.output) == expected_items(said)
    why = WHY_INCOMPLETE.get(said.reason)
    assert response.status == ("completed" if why is None else "incomplete")
    assert (response.incomplete_details and response.incomplete_details.reason) == why
    assert response.usage.input_tokens == usage.prompt_tokens
    assert response.usage.input_tokens_details.cached_tokens == usage.cached_tokens
    assert response.usage.output_tokens == usage.completion_tokens
    assert response.usage.output_tokens_details.reasoning_tokens == usage.reasoning_tokens
    assert response.usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@settings(max_examples=25)
@given(stream=one_choice, fields=asked, chunk_bytes=st.integers(1, 400))
def test_the_sdk_accumulates_a_stream_to_what_was_said(
    stream: Stream, fields: dict[str, Any], chunk_bytes: int
) -> None:
    body = streamed(RESPONSES, decode(RESPONSES, stream=True, **fields), stream.events)
    client = openai_client(recorder(body, stream=True, chunk_bytes=chunk_bytes))
    with client.responses.stream(model=MODEL, input="hi") as events:
        last = [*events][-1]
    assert last.type == f"response.{last.response.status}"
    assert last.response.id == f"resp_{REQUEST_ID}"
    assert last.response.model == MODEL
    check_end(last.response, stream)


@settings(max_examples=25)
@given(stream=one_choice, fields=asked)
def test_the_sdk_reads_a_whole_answer_as_what_was_said(
    stream: Stream, fields: dict[str, Any]
) -> None:
    body = whole(RESPONSES, decode(RESPONSES, **fields), stream.events)
    response = openai_client(recorder(body)).responses.create(model=MODEL, input="hi")
    check_end(response, stream)


@settings(max_examples=25)
@given(stream=one_choice, fields=asked)
def test_a_stream_keeps_to_the_order_of_openai(stream: Stream, fields: dict[str, Any]) -> None:
    seen = sent(stream.events, **fields)
    assert kinds(seen)[:2] == ["created", "in_progress"]
    assert kinds(seen)[-1] in ("completed", "incomplete")
    rest = [each for each in seen[2:-1] if each["type"] != "response.in_progress"]
    places = [each["output_index"] for each in rest]
    assert places == sorted(places)
    final = seen[-1]["response"]["output"]
    for index, item in enumerate(final):
        mine = [each for each in rest if each["output_index"] == index]
        first, *middle, last = mine
        assert (first["type"], last["type"]) == (
            "response.output_item.added",
            "response.output_item.done",
        )
        assert first["item"]["status"] == "in_progress"
        holds = {"content", "summary", "arguments"} & set(item)
        assert all(not first["item"][key] for key in holds)
        assert last["item"] == item
        assert {each["item_id"] for each in middle} <= {item["id"]}
        deltas = "".join(each["delta"] for each in middle if "delta" in each)
        assert deltas == read_item(validated(item))[-1]


def validated(item: dict[str, Any]) -> Any:
    event = {"type": "response.output_item.done", "output_index": 0, "sequence_number": 0}
    return EVENT.validate_python(event | {"item": item}).item


@settings(max_examples=25)
@given(stream=one_choice, fields=asked)
def test_an_answer_sent_back_is_the_turn_that_was_said(
    stream: Stream, fields: dict[str, Any]
) -> None:
    output = json.loads(whole(RESPONSES, decode(RESPONSES, **fields), stream.events))["output"]
    user = {"role": "user", "content": "more"}
    messages = decode(RESPONSES, input=[*output, user]).request.prompt.messages
    said = [part_of(*item) for item in expected_items(stream.said[0])]
    turn = [Message("assistant", tuple(said))] if said else []
    assert list(messages) == [*turn, Message("user", (TextPart("more"),))]


def part_of(kind: str, *members: str) -> TextPart | ReasoningPart | ToolCallPart:
    if kind == "function_call":
        call_id, name, arguments = members
        return ToolCallPart(call_id, name, arguments or "{}")
    return TextPart(members[0]) if kind == "message" else ReasoningPart(members[0])


END = [Finished(0, "stop"), Completed(Usage(7, 3))]


def test_events_of_a_message() -> None:
    seen = sent([started(), TextDelta(0, "a"), TextDelta(0, ""), TextDelta(0, "b"), *END])
    assert kinds(seen) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert seen[2]["item"]["content"] == []
    assert seen[6]["text"] == "ab"
    assert seen[7]["part"]["text"] == "ab"


def test_events_of_a_call() -> None:
    call = [ToolCallStarted(0, 0, "call_1", "look"), ToolCallDelta(0, 0, '{"a":'), END[0]]
    seen = sent([started(), *call, END[1]])
    assert kinds(seen)[2:-1] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert seen[2]["item"]["arguments"] == ""
    assert seen[4]["arguments"] == '{"a":'
    assert seen[4]["name"] == "look"
    assert seen[5]["item"]["call_id"] == "call_1"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {},
            [
                "content_part.added",
                "reasoning_text.delta",
                "reasoning_text.done",
                "content_part.done",
            ],
        ),
        (
            SUMMARY,
            [
                "reasoning_summary_part.added",
                "reasoning_summary_text.delta",
                "reasoning_summary_text.done",
                "reasoning_summary_part.done",
            ],
        ),
    ],
)
def test_events_of_thoughts(fields: dict[str, Any], expected: list[str]) -> None:
    seen = sent([started(), ReasoningDelta(0, "hm"), *END], **fields)
    assert kinds(seen)[2:-1] == ["output_item.added", *expected, "output_item.done"]
    item = seen[-1]["response"]["output"][0]
    assert (item["summary"] == []) == (fields == {})
    assert item["encrypted_content"] is None


def test_parallel_calls_are_items_of_their_own() -> None:
    calls: list[Event] = []
    for place in range(2):
        calls += [ToolCallStarted(0, place, f"call_{place}", "f"), ToolCallDelta(0, place, "{}")]
    seen = sent([started(), *calls, Finished(0, "tool_calls"), END[1]])
    output = seen[-1]["response"]["output"]
    assert [item["call_id"] for item in output] == ["call_0", "call_1"]
    assert len({item["id"] for item in output}) == 2


def test_the_last_item_of_an_answer_that_was_cut_off_is_incomplete() -> None:
    seen = sent(
        [started(), ReasoningDelta(0, "hm"), TextDelta(0, "a"), Finished(0, "length"), END[1]]
    )
    assert kinds(seen)[-1] == "incomplete"
    assert [item["status"] for item in seen[-1]["response"]["output"]] == [
        "completed",
        "incomplete",
    ]


def test_waiting_is_told_by_the_first_event_and_by_comments_and_now_and_then_by_an_event() -> None:
    encoder = RESPONSES.encoder(decode(RESPONSES, stream=True), created=1)
    first = encoder.event(Loading("loading", 0.25, 9.0))
    assert first.startswith(b": loading stage=loading progress=25% eta_s=9\n\n")
    assert [name for name, _ in frames(first)] == ["response.created", "response.in_progress"]
    for _ in range(2):
        comments = [encoder.event(Ping()) for _ in range(COMMENTS_PER_EVENT)]
        assert set(comments) == {b": ping\n\n"}
        ((name, data),) = frames(encoder.event(Ping()))
        assert name == "response.in_progress"
        EVENT.validate_python(data)
    assert encoder.event(started()) == b""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeviceFailed("cannot go on: dead"), "server_error"),
        (InvalidRequest("cannot go on: wrong"), "invalid_prompt"),
        (QueueFull("cannot queue: full", retry_after_s=2.5), "rate_limit_exceeded"),
        (Overloaded("cannot go on: full"), "server_error"),
    ],
)
@pytest.mark.parametrize("before", [[], [Ping()], [started(), TextDelta(0, "a")]])
def test_a_failure_ends_a_stream_and_only_the_stream(
    before: list[Event], error: Any, code: str
) -> None:
    seen = sent([*before, Failed(error.info())])
    response = seen[-1]["response"]
    assert kinds(seen)[-1] == "failed"
    assert kinds(seen)[0] == "created"
    assert response["status"] == "failed"
    assert response["error"]["code"] == code
    assert response["error"]["message"].startswith(error.message)
    assert ("try again in 2.5s" in response["error"]["message"]) == (code == "rate_limit_exceeded")


def test_a_prompt_that_is_too_long_is_named_as_clients_know_it() -> None:
    failed = Failed(ContextLengthExceeded(prompt_tokens=9, max_tokens=4).info())
    body = streamed(RESPONSES, decode(RESPONSES, stream=True), [Ping(), failed])
    _, data = frames(body)[-1]
    assert data["response"]["error"]["code"] == "context_length_exceeded"


def test_a_failure_without_a_stream_is_raised_as_it_was() -> None:
    failed = Failed(Overloaded("cannot answer: full", retry_after_s=3.0).info())
    with pytest.raises(Overloaded, match="cannot answer: full"):
        whole(RESPONSES, decode(RESPONSES), [started(), TextDelta(0, "a"), failed])


@pytest.mark.parametrize(
    "events",
    [
        [TextDelta(0, "a")],
        [started(), TextDelta(1, "a")],
        [started(), ToolCallStarted(0, 1, "id", "name")],
        [started(), ToolCallDelta(0, 0, "{}")],
        [started(), Completed(Usage(1, 1))],
    ],
)
def test_events_out_of_order_are_a_protocol_error(events: list[Event]) -> None:
    with pytest.raises(ProtocolError):
        streamed(RESPONSES, decode(RESPONSES, stream=True), events)
    with pytest.raises(ProtocolError):
        whole(RESPONSES, decode(RESPONSES), [*events, Completed(Usage(1, 1))])


def test_more_of_a_call_behind_something_else_is_a_protocol_error() -> None:
    call = [ToolCallStarted(0, 0, "id", "f"), TextDelta(0, "a"), ToolCallDelta(0, 0, "{}")]
    with pytest.raises(ProtocolError, match="it is not open"):
        streamed(RESPONSES, decode(RESPONSES, stream=True), [started(), *call])


def test_logprobs_stand_in_deltas_and_in_the_text_they_belong_to() -> None:
    top = (TokenLogprob(5, " a", -0.1), TokenLogprob(6, "\ufffd", -2.0))
    events: list[Event] = [
        started(),
        TextDelta(0, " a", logprobs=(TokenLogprob(5, " a", -0.1, top),)),
        TextDelta(0, "", logprobs=(TokenLogprob(6, "\ufffd", -2.0, raw=b"\xe5"),)),
        ReasoningDelta(0, "hm"),
        TextDelta(0, "b", logprobs=(TokenLogprob(7, "b", -0.3),)),
        *END,
    ]
    seen = sent(events, top_logprobs=2, include=["message.output_text.logprobs"])
    texts = [each for each in seen if each["type"] == "response.output_text.delta"]
    assert [[one["token"] for one in each["logprobs"]] for each in texts] == [
        [" a"],
        ["\ufffd"],
        ["b"],
    ]
    output = seen[-1]["response"]["output"]
    response = Response.model_validate(seen[-1]["response"])
    assert [one.token for one in response.output[0].content[0].logprobs] == [" a", "\ufffd"]
    assert [one["bytes"] for one in output[0]["content"][0]["logprobs"]] == [[32, 97], [0xE5]]
    assert [one.token for one in response.output[2].content[0].logprobs] == ["b"]


def test_a_failed_response_raises_nothing_in_the_sdk_and_is_its_last_event() -> None:
    failed = Failed(DeviceFailed("cannot go on: dead").info())
    body = streamed(
        RESPONSES, decode(RESPONSES, stream=True), [started(), TextDelta(0, "a"), failed]
    )
    client = openai_client(recorder(body, stream=True))
    *_, last = client.responses.create(model=MODEL, input="hi", stream=True)
    assert last.type == "response.failed"
    assert "dead" in last.response.error.message


def test_an_error_before_the_first_byte_is_in_openais_envelope() -> None:
    reply = RESPONSES.encode_error(QueueFull("cannot queue: full").info(), request_id=REQUEST_ID)
    with pytest.raises(openai.RateLimitError) as caught:
        openai_client(recorder(reply)).responses.create(model=MODEL, input="hi")
    assert caught.value.code == "queue_full"
