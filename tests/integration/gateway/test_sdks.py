"""Both official SDKs as clients of the HTTP server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest

from cortex_core.canonical import (
    Completed,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    Started,
    TextPrompt,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from cortex_core.errors import ContextLengthExceeded, DeviceFailed
from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.http_process import HttpProcess
from tests.fakes.scripts import TEXT, answer_events, breaks_after, whole
from tests.fakes.waiting import wait_until_async

HELLO = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def openai_client(http: HttpProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{http.base_url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def anthropic_client(http: HttpProcess) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=http.base_url, api_key="none", max_retries=0
    ) as client:
        yield client


@pytest.fixture(autouse=True)
def answering(neurons: list[FakeNeuron]) -> None:
    for neuron in neurons:
        neuron.script = whole


async def test_openai_chat(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(model="small", messages=HELLO)
    assert answer.choices[0].message.content == TEXT
    assert answer.usage is not None
    assert answer.usage.total_tokens == 8


async def test_openai_chat_stream(openai_client: openai.AsyncOpenAI) -> None:
    stream = await openai_client.chat.completions.create(
        model="small", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    text, usage = "", None
    async for chunk in stream:
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text == TEXT
    assert usage is not None
    assert usage.completion_tokens == 5


async def test_openai_completions(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.completions.create(model="small", prompt="hi")
    assert answer.choices[0].text == TEXT
    stream = await openai_client.completions.create(model="small", prompt="hi", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream if chunk.choices]) == TEXT


async def test_several_prompts_of_a_completion_are_answered_each(
    openai_client: openai.AsyncOpenAI, neurons: list[FakeNeuron]
) -> None:
    async def repeats(request: GenerateRequest) -> AsyncIterator[Event]:
        assert isinstance(request.prompt, TextPrompt)
        for event in answer_events(request, (request.prompt.text, str(request.sampling.seed))):
            yield event

    for neuron in neurons:
        neuron.script = repeats
    asked: dict[str, Any] = {"model": "small", "prompt": ["a", "b", "a"], "n": 2}
    answer = await openai_client.completions.create(**asked, echo=True)
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert [choice.text[:2] for choice in answer.choices] == ["aa", "aa", "bb", "bb", "aa", "aa"]
    assert answer.choices[0].text != answer.choices[4].text
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 12)
    requests = [request for neuron in neurons for request in neuron.generated]
    assert len({request.request_id for request in requests}) == 3
    texts = [""] * 6
    stream = await openai_client.completions.create(**asked, seed=7, stream=True)
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == ["a7", "a7", "b7", "b7", "a7", "a7"]


async def test_one_prompt_that_fails_fails_them_all(
    openai_client: openai.AsyncOpenAI, neurons: list[FakeNeuron], http: HttpProcess
) -> None:
    async def fails(request: GenerateRequest) -> AsyncIterator[Event]:
        if request.prompt == TextPrompt("long"):
            yield Failed(ContextLengthExceeded(prompt_tokens=9, max_tokens=4).info())
            return
        yield answer_events(request)[0]
        await asyncio.Event().wait()

    for neuron in neurons:
        neuron.script = fails
    with pytest.raises(openai.BadRequestError, match="maximum context length is 4") as caught:
        await openai_client.completions.create(model="small", prompt=["a", "long", "b"])
    assert caught.value.code == "context_length_exceeded"
    await wait_until_async(lambda: http.in_flight() == 0)
    await wait_until_async(
        lambda: all(len(one.generated) - len(one.cancelled) <= 1 for one in neurons)
    )


async def test_openai_models(openai_client: openai.AsyncOpenAI) -> None:
    assert "small" in [model.id async for model in openai_client.models.list()]
    assert (await openai_client.models.retrieve("fake:m")).id == "fake:m"


async def test_openai_errors(openai_client: openai.AsyncOpenAI, neurons: list[FakeNeuron]) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await openai_client.chat.completions.create(model="nope", messages=HELLO)
    assert missing.value.code == "model_not_found"
    assert missing.value.request_id

    async def breaks(request: GenerateRequest) -> AsyncIterator[Event]:
        for event in answer_events(request)[:3]:
            yield event
        yield Failed(DeviceFailed("cannot go on: dead").info())

    for neuron in neurons:
        neuron.script = breaks
    stream = await openai_client.chat.completions.create(
        model="small", messages=HELLO, stream=True, n=2
    )
    with pytest.raises(openai.APIError, match="dead"):
        [chunk async for chunk in stream]


async def test_anthropic_messages(anthropic_client: anthropic.AsyncAnthropic) -> None:
    answer = await anthropic_client.messages.create(model="small", max_tokens=99, messages=HELLO)
    assert answer.content[0].text == TEXT
    assert answer.usage.input_tokens == 3
    assert answer.stop_reason == "end_turn"


async def test_anthropic_stream(anthropic_client: anthropic.AsyncAnthropic) -> None:
    async with anthropic_client.messages.stream(
        model="small", max_tokens=99, messages=HELLO
    ) as stream:
        assert "".join([text async for text in stream.text_stream]) == TEXT
        message = await stream.get_final_message()
    assert message.usage.output_tokens == 5


async def test_anthropic_tools(
    anthropic_client: anthropic.AsyncAnthropic, neurons: list[FakeNeuron]
) -> None:
    async def calls(request: GenerateRequest) -> AsyncIterator[Event]:
        yield Started(request.request_id, request.model, 3)
        yield ToolCallStarted(0, 0, "call_1", "weather", seq=0)
        yield ToolCallDelta(0, 0, '{"city": ', seq=1)
        yield ToolCallDelta(0, 0, '"Oslo"}', seq=2)
        yield Finished(0, "tool_calls", seq=3)
        yield Completed(Usage(3, 9))

    for neuron in neurons:
        neuron.script = calls
    tool = {"name": "weather", "input_schema": {"type": "object"}}
    async with anthropic_client.messages.stream(
        model="small", max_tokens=99, messages=HELLO, tools=[tool]
    ) as stream:
        message = await stream.get_final_message()
    assert message.stop_reason == "tool_use"
    assert message.content[0].input == {"city": "Oslo"}


async def test_anthropic_count_and_models(anthropic_client: anthropic.AsyncAnthropic) -> None:
    count = await anthropic_client.messages.count_tokens(model="small", messages=HELLO)
    assert count.input_tokens == 7
    assert "small" in [model.id async for model in anthropic_client.models.list()]


async def test_anthropic_errors(
    anthropic_client: anthropic.AsyncAnthropic, neurons: list[FakeNeuron]
) -> None:
    with pytest.raises(anthropic.NotFoundError):
        await anthropic_client.messages.create(model="nope", max_tokens=9, messages=HELLO)

    async def too_long(_request: GenerateRequest) -> AsyncIterator[Event]:
        yield Failed(ContextLengthExceeded(prompt_tokens=9, max_tokens=4).info())

    for neuron in neurons:
        neuron.script = too_long
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 9 tokens > 4"):
        await anthropic_client.messages.create(model="small", max_tokens=9, messages=HELLO)


async def test_stream_that_moves_is_one_stream_to_the_sdk(
    anthropic_client: anthropic.AsyncAnthropic, neurons: list[FakeNeuron]
) -> None:
    neurons[0].script = breaks_after(4)
    async with anthropic_client.messages.stream(
        model="small", max_tokens=99, messages=HELLO
    ) as stream:
        message = await stream.get_final_message()
    assert message.content[0].text == TEXT
    assert len(neurons[1].generated) == 1
