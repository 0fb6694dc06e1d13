"""Streams and whole answers of the OpenAI dialects, read by the openai SDK."""

from typing import Any

import openai
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_core.canonical import (
    Completed,
    Failed,
    Finished,
    Loading,
    Ping,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from cortex_core.dialects.openai_chat import OpenAIChat
from cortex_core.dialects.openai_completions import OpenAICompletions
from cortex_core.errors import ErrorInfo, Overloaded, ProtocolError
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
    decode,
    frames,
    openai_client,
    recorder,
    streamed,
    whole,
)

CHAT = OpenAIChat()
COMPLETIONS = OpenAICompletions()
FINISH = {"cancelled": "length"}


OURS = {"reasoning_content"}
"""Members of an answer that OpenAI's own client has no field for."""


def extras(model: Any) -> set[str]:
    """Names of members anywhere in an answer that the SDK does not know."""
    if isinstance(model, list):
        return set().union(*map(extras, model))
    if not isinstance(model, pydantic.BaseModel):
        return set()
    below = (extras(getattr(model, name)) for name in type(model).model_fields)
    return set(model.model_extra or ()).union(*below)


def check_choice(choice: Any, said: Said) -> None:
    message = choice.message
    assert (message.content or "") == said.joined("text")
    assert (getattr(message, "reasoning_content", None) or "") == said.joined("reasoning")
    calls = message.tool_calls or []
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
        (call.id, call.name, call.arguments) for call in said.calls
    ]
    assert choice.finish_reason == FINISH.get(said.reason, said.reason)


def check_usage(usage: Any, expected: Usage) -> None:
    assert usage.prompt_tokens == expected.prompt_tokens
    assert usage.completion_tokens == expected.completion_tokens
    assert usage.total_tokens == expected.prompt_tokens + expected.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens == expected.cached_tokens
    assert usage.completion_tokens_details.reasoning_tokens == expected.reasoning_tokens


@settings(max_examples=40)
@given(stream=streams(), include_usage=st.booleans(), chunk_bytes=st.integers(1, 400))
def test_the_sdk_accumulates_a_chat_stream_to_what_was_said(
    stream: Stream, include_usage: bool, chunk_bytes: int
) -> None:
    n = len(stream.said)
    decoded = decode(CHAT, n=n, stream=True, stream_options={"include_usage": include_usage})
    body = streamed(CHAT, decoded, stream.events)
    client = openai_client(recorder(body, stream=True, chunk_bytes=chunk_bytes))
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, n=n) as chunks:
        chunks.until_done()
        answer = chunks.current_completion_snapshot
    assert answer.id == f"chatcmpl-{REQUEST_ID}"
    assert answer.model == MODEL
    assert len(answer.choices) == n
    for choice, said in zip(answer.choices, stream.said, strict=True):
        check_choice(choice, said)
    if include_usage:
        check_usage(answer.usage, stream.usage)
    else:
        assert answer.usage is None


@settings(max_examples=40)
@given(stream=streams())
def test_a_chat_stream_keeps_to_the_form_of_openai(stream: Stream) -> None:
    n = len(stream.said)
    decoded = decode(CHAT, n=n, stream=True, stream_options={"include_usage": True})
    sent = frames(streamed(CHAT, decoded, stream.events))
    assert sent[-1] == (None, "[DONE]")
    chunks = [data for _, data in sent[:-1] if isinstance(data, dict)]
    assert chunks[-1]["choices"] == []
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    for index in range(n):
        mine = [each for chunk in chunks for each in chunk["choices"] if each["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert [each["finish_reason"] is not None for each in mine] == [False] * (len(mine) - 1) + [
            True
        ]
        calls = [call for each in mine for call in each["delta"].get("tool_calls", ())]
        assert all("index" in call for call in calls)
        named = [call["index"] for call in calls if "id" in call]
        assert named == list(range(len(stream.said[index].calls)))
        assert all(("name" in call["function"]) == ("id" in call) for call in calls)


@settings(max_examples=40)
@given(stream=streams())
def test_every_chunk_of_a_chat_is_one_that_the_sdk_knows(stream: Stream) -> None:
    n = len(stream.said)
    decoded = decode(CHAT, n=n, stream=True, stream_options={"include_usage": True})
    source = recorder(streamed(CHAT, decoded, stream.events), stream=True)
    answer = openai_client(source).chat.completions.create(
        model=MODEL, messages=MESSAGES, n=n, stream=True
    )
    chunks = list(answer)
    assert chunks
    for chunk in chunks:
        assert extras(chunk) <= OURS
        assert chunk.object == "chat.completion.chunk"
        assert chunk.id == f"chatcmpl-{REQUEST_ID}"
        assert chunk.created == 1_700_000_000


@settings(max_examples=40)
@given(stream=streams())
def test_the_sdk_reads_a_whole_chat_answer_as_what_was_said(stream: Stream) -> None:
    n = len(stream.said)
    body = whole(CHAT, decode(CHAT, n=n), stream.events)
    client = openai_client(recorder(body))
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, n=n)
    assert extras(answer) <= OURS
    for choice, said in zip(answer.choices, stream.said, strict=True):
        check_choice(choice, said)
    check_usage(answer.usage, stream.usage)


@settings(max_examples=40)
@given(stream=streams(calls=False), chunk_bytes=st.integers(1, 400))
def test_the_sdk_reads_completions_streamed_and_whole(stream: Stream, chunk_bytes: int) -> None:
    n = len(stream.said)
    asked = decode(COMPLETIONS, n=n, stream=True, stream_options={"include_usage": True})
    source = recorder(
        streamed(COMPLETIONS, asked, stream.events), stream=True, chunk_bytes=chunk_bytes
    )
    texts = [""] * n
    reasons: dict[int, str | None] = {}
    usage = None
    # The SDK types the reason of a chunk as if it were never null, which it is even from OpenAI.
    client = openai_client(source, strict=False)
    for chunk in client.completions.create(model=MODEL, prompt="hi", stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            if choice.finish_reason is not None:
                reasons[choice.index] = choice.finish_reason
        usage = chunk.usage or usage
    check_usage(usage, stream.usage)
    body = whole(COMPLETIONS, decode(COMPLETIONS, n=n), stream.events)
    answer = openai_client(recorder(body)).completions.create(model=MODEL, prompt="hi")
    assert not extras(answer)
    check_usage(answer.usage, stream.usage)
    for index, said in enumerate(stream.said):
        text = "".join(run for _, run in said.runs)
        assert texts[index] == answer.choices[index].text == text
        reason = FINISH.get(said.reason, said.reason)
        assert reasons[index] == answer.choices[index].finish_reason == reason


def test_logprobs_are_carried_by_both_dialects() -> None:
    top = (
        TokenLogprob(5, " a", -0.1),
        TokenLogprob(6, "\ufffd", -2.0, raw=b"\xe5"),
        TokenLogprob(7, "\ufffd", -3.0, raw=b"\xe6"),
    )
    events = [
        started(),
        TextDelta(0, " a", logprobs=(TokenLogprob(5, " a", -0.1, top),)),
        TextDelta(0, "", logprobs=(TokenLogprob(6, "\ufffd", -2.0, raw=b"\xe5"),)),
        Finished(0, "length"),
        Completed(Usage(7, 2)),
    ]
    asked = decode(CHAT, logprobs=True, top_logprobs=3)
    chat = openai_client(recorder(whole(CHAT, asked, events))).chat.completions.create(
        model=MODEL, messages=MESSAGES
    )
    content = chat.choices[0].logprobs.content
    assert [each.token for each in content] == [" a", "\ufffd"]
    assert content[0].bytes == [32, 97]
    assert [each.logprob for each in content[0].top_logprobs] == [-0.1, -2.0, -3.0]
    assert content[1].bytes == [0xE5]
    assert [each.bytes for each in content[0].top_logprobs] == [[32, 97], [0xE5], [0xE6]]
    chunks = [data for _, data in frames(streamed(CHAT, asked, events)) if isinstance(data, dict)]
    tokens = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [each["content"][0]["token"] for each in tokens if each] == [" a", "\ufffd"]

    old = decode(COMPLETIONS, logprobs=3)
    answer = openai_client(recorder(whole(COMPLETIONS, old, events))).completions.create(
        model=MODEL, prompt="hi"
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs.tokens == [" a", "\ufffd"]
    assert logprobs.token_logprobs == [-0.1, -2.0]
    assert logprobs.top_logprobs == [{" a": -0.1, "\ufffd": -2.0}, {}]
    assert logprobs.text_offset == [0, 2]
    offsets = [
        data["choices"][0]["logprobs"]["text_offset"]
        for _, data in frames(streamed(COMPLETIONS, old, events))
        if isinstance(data, dict) and data["choices"] and data["choices"][0]["logprobs"]
    ]
    assert offsets == [[0], [2]]


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS], ids=["chat", "completions"])
def test_a_failure_in_a_stream_raises_in_the_sdk_and_ends_it(dialect: Any) -> None:
    error = ErrorInfo("node_unavailable", "cannot reach the node: it went away")
    events = [started(), TextDelta(0, "a"), Failed(error)]
    body = streamed(dialect, decode(dialect, stream=True), events)
    assert b"[DONE]" not in body
    client = openai_client(recorder(body, stream=True), strict=False)
    if dialect is CHAT:
        chunks = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    else:
        chunks = client.completions.create(model=MODEL, prompt="hi", stream=True)
    with pytest.raises(openai.APIError, match="it went away") as caught:
        for _ in chunks:
            pass
    assert caught.value.code == "node_unavailable"
    assert caught.value.type == "server_error"


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS], ids=["chat", "completions"])
def test_a_failure_without_a_stream_is_raised_as_it_was(dialect: Any) -> None:
    error = ErrorInfo("service_unavailable", "cannot answer: full", retry_after_s=3.0)
    with pytest.raises(Overloaded, match="cannot answer: full") as caught:
        whole(dialect, decode(dialect), [Ping(), started(), TextDelta(0, "a"), Failed(error)])
    assert caught.value.retry_after_s == 3.0


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS], ids=["chat", "completions"])
def test_waiting_is_told_in_comments(dialect: Any) -> None:
    waits = [Ping(), Loading("loading", 0.256, 11.7), Loading("a\nb")]
    body = streamed(dialect, decode(dialect, stream=True), waits)
    loading = b": loading stage=loading progress=26% eta_s=12\n\n"
    assert body == b": ping\n\n" + loading + b": loading stage=a b\n\n"


@pytest.mark.parametrize(
    "events",
    [
        [TextDelta(0, "a")],
        [started(), TextDelta(1, "a")],
        [started(), Finished(2, "stop")],
        [started(), ToolCallStarted(1, 0, "id", "name")],
    ],
)
def test_events_out_of_order_are_a_protocol_error(events: list[Any]) -> None:
    with pytest.raises(ProtocolError):
        streamed(CHAT, decode(CHAT, stream=True), events)
    with pytest.raises(ProtocolError):
        whole(CHAT, decode(CHAT), [*events, Completed(Usage(1, 1))])


@pytest.mark.parametrize(
    "events",
    [
        [],
        [started()],
        [started(), Completed(Usage(1, 0))],
        [started(), TextDelta(0, "a"), Completed(Usage(1, 1))],
        [started(), Finished(0, "stop")],
        [started(), ToolCallDelta(0, 0, "{}"), Finished(0, "stop"), Completed(Usage(1, 1))],
        [started(), ToolCallStarted(0, 1, "id", "n"), Finished(0, "stop"), Completed(Usage(1, 1))],
    ],
)
def test_an_answer_that_is_not_whole_is_a_protocol_error(events: list[Any]) -> None:
    with pytest.raises(ProtocolError):
        whole(CHAT, decode(CHAT), events)


def test_the_weights_are_the_fingerprint() -> None:
    first = Started(REQUEST_ID, decode(CHAT).request.model, 3, weights_id="w1")
    events = [first, Finished(0, "stop"), Completed(Usage(3, 0))]
    chunks = frames(streamed(CHAT, decode(CHAT, stream=True), events))
    assert all(data["system_fingerprint"] == "w1" for _, data in chunks if isinstance(data, dict))
    answer = openai_client(recorder(whole(CHAT, decode(CHAT), events)))
    assert answer.chat.completions.create(model=MODEL, messages=MESSAGES).system_fingerprint == "w1"


def test_a_call_without_text_has_content_null() -> None:
    events = [
        started(),
        ToolCallStarted(0, 0, "call_1", "look"),
        ToolCallDelta(0, 0, "{}"),
        Finished(0, "tool_calls"),
        Completed(Usage(3, 2)),
    ]
    client = openai_client(recorder(whole(CHAT, decode(CHAT), events)))
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert answer.choices[0].message.content is None
    assert answer.choices[0].finish_reason == "tool_calls"


def test_a_long_answer_is_joined_once() -> None:
    pieces = [f"{number} " for number in range(100_000)]
    events = [
        started(),
        *(TextDelta(0, piece) for piece in pieces),
        Finished(0, "stop"),
        Completed(Usage(3, len(pieces))),
    ]
    client = openai_client(recorder(whole(CHAT, decode(CHAT), events), chunk_bytes=1 << 20))
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert answer.choices[0].message.content == "".join(pieces)
