"""The anthropic SDK against `cortex serve` with all its processes: an agent's turn, and a wait."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from cortex_core.canonical import (
    ChatPrompt,
    Completed,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    ReasoningDelta,
    ReasoningPart,
    Started,
    TextDelta,
    TextPart,
    ToolCallDelta,
    ToolCallPart,
    ToolCallStarted,
    ToolResultPart,
    Usage,
)
from cortex_core.errors import InternalError
from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.gateway_client import GatewayClient
from tests.fakes.serve_process import MODEL, ServeProcess

ASKED: dict[str, Any] = {"model": "small", "max_tokens": 99}
QUESTION: Any = {"role": "user", "content": "How warm is it?"}
WEATHER: Any = {"name": "weather", "input_schema": {"type": "object"}}
SEARCH: Any = {"type": "web_search_20250305", "name": "web_search"}
THINKING: Any = {"type": "adaptive"}


async def agent(request: GenerateRequest) -> AsyncIterator[Event]:
    """Think, say something and call two tools; answer once there is a result."""
    assert isinstance(request.prompt, ChatPrompt)
    yield Started(request.request_id, request.model, 12, cached_tokens=8)
    if request.prompt.messages[-1].role == "tool":
        yield TextDelta(0, "Mild.", seq=0, token_ids=(1,))
        yield Finished(0, "stop", seq=1)
        yield Completed(Usage(12, 1, cached_tokens=8))
        return
    events: list[Event] = [
        ReasoningDelta(0, "They ask ", token_ids=(1,)),
        ReasoningDelta(0, "for weather.", seq=1, token_ids=(2,)),
        TextDelta(0, "Looking.", seq=2, token_ids=(3,)),
        ToolCallStarted(0, 0, "call_1", "weather", seq=3, token_ids=(4,)),
        ToolCallDelta(0, 0, '{"city": "Os', seq=4, token_ids=(5,)),
        ToolCallDelta(0, 0, 'lo"}', seq=5, token_ids=(6,)),
        ToolCallStarted(0, 1, "call_2", "weather", seq=6, token_ids=(7,)),
        Finished(0, "tool_calls", seq=7),
        Completed(Usage(12, 7, cached_tokens=8, reasoning_tokens=2)),
    ]
    for event in events:
        yield event


@pytest.fixture
async def neuron() -> AsyncIterator[FakeNeuron]:
    async with FakeNeuron({MODEL: 100}) as made:
        made.script = agent
        yield made


@pytest.fixture
async def client(tmp_path: Path, neuron: FakeNeuron) -> AsyncIterator[anthropic.AsyncAnthropic]:
    process = ServeProcess(tmp_path, neuron.endpoint)
    async with GatewayClient(process.base_url) as knocking:
        await knocking.wait_ready(nodes=1)
    async with anthropic.AsyncAnthropic(
        base_url=process.base_url,
        api_key="none",
        max_retries=0,
        _strict_response_validation=True,
    ) as made:
        yield made
    await asyncio.to_thread(process.close)


async def test_an_agents_turn_streamed_and_whole(
    client: anthropic.AsyncAnthropic, neuron: FakeNeuron
) -> None:
    asked = ASKED | {"tools": [WEATHER, SEARCH], "thinking": THINKING}
    async with client.messages.stream(messages=[QUESTION], **asked) as stream:
        kinds = [event.type async for event in stream]
        streamed = await stream.get_final_message()
        headers = stream.response.headers
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert headers["x-cortex-ignored"] == "tools[1]"
    assert headers["request-id"].startswith("req_")
    whole = await client.messages.create(messages=[QUESTION], **asked)
    of_streams = {"parsed_output"}
    assert [each.model_dump(exclude=of_streams) for each in streamed.content] == [
        each.model_dump() for each in whole.content
    ]
    assert streamed.usage.model_dump() == whole.usage.model_dump()
    assert whole.usage.input_tokens == 4
    assert whole.usage.cache_read_input_tokens == 8
    assert whole.stop_reason == "tool_use"
    thought, text, *calls = whole.content
    assert (thought.thinking, text.text) == ("They ask for weather.", "Looking.")
    assert [(call.id, call.input) for call in calls] == [
        ("call_1", {"city": "Oslo"}),
        ("call_2", {}),
    ]

    results = [
        {
            "type": "tool_result",
            "tool_use_id": "call_1",
            "content": [{"type": "text", "text": "9"}],
        },
        {"type": "tool_result", "tool_use_id": "call_2", "content": "no city", "is_error": True},
    ]
    turns: Any = [QUESTION, streamed.to_param(), {"role": "user", "content": results}]
    answer = await client.beta.messages.create(
        messages=turns, betas=["interleaved-thinking-2025-05-14"], **asked
    )
    assert answer.content[0].text == "Mild."
    prompt = neuron.generated[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert [tool.name for tool in prompt.tools] == ["weather"]
    assert [each.role for each in prompt.messages] == ["user", "assistant", "tool", "tool"]
    reasoning, _, call, _ = prompt.messages[1].content
    assert reasoning == ReasoningPart("They ask for weather.", thought.signature)
    assert call == ToolCallPart("call_1", "weather", '{"city":"Oslo"}')
    last = prompt.messages[-1].content[0]
    assert isinstance(last, ToolResultPart)
    assert last.is_error


async def test_the_line_for_anthropics_books_is_dropped_as_the_gateway_is_told(
    tmp_path: Path, neuron: FakeNeuron
) -> None:
    line = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=3f2a1;"}
    brief = {"type": "text", "text": "Be brief."}
    for value, expected in (("true", ["Be brief."]), ("false", [line["text"], "Be brief."])):
        folder = tmp_path / value
        folder.mkdir()
        process = ServeProcess(
            folder, neuron.endpoint, environment={"CORTEX_GATEWAY__DROP_BILLING_LINE": value}
        )
        try:
            async with GatewayClient(process.base_url) as knocking:
                await knocking.wait_ready(nodes=1)
            async with anthropic.AsyncAnthropic(
                base_url=process.base_url, api_key="none", max_retries=0
            ) as made:
                system: Any = [line, brief]
                await made.messages.create(messages=[QUESTION], system=system, **ASKED)
        finally:
            await asyncio.to_thread(process.close)
        prompt = neuron.generated[-1].prompt
        assert isinstance(prompt, ChatPrompt)
        said = [part.text for part in prompt.messages[0].content if isinstance(part, TextPart)]
        assert said == expected


async def test_a_wait_for_the_model_and_a_break_are_the_sdks_to_read(
    client: anthropic.AsyncAnthropic, neuron: FakeNeuron
) -> None:
    async def breaks(request: GenerateRequest) -> AsyncIterator[Event]:
        yield Started(request.request_id, request.model, 12)
        yield TextDelta(0, "Mi", seq=0, token_ids=(1,))
        yield Failed(InternalError("cannot go on: dead").info())

    neuron.load_gate.clear()
    raw = await client.messages.create(messages=[QUESTION], stream=True, **ASKED)
    assert neuron.generated == [], "the answer's head has come while the model still loads"
    neuron.load_gate.set()
    kinds = [event.type async for event in raw]
    assert kinds[0] == "message_start"
    assert kinds.count("content_block_start") == 4
    neuron.script = breaks
    with pytest.raises(anthropic.APIStatusError, match="dead"):
        async with client.messages.stream(messages=[QUESTION], **ASKED) as stream:
            await stream.until_done()
