"""`/v1/responses` over a whole `cortex serve`, and what it keeps."""

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest

from cortex_core.canonical import (
    ChatPrompt,
    Completed,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    Message,
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
from cortex_core.errors import ModelUnloaded
from tests.fakes.fake_neuron import FakeNeuron, Script
from tests.fakes.gateway_client import GatewayClient
from tests.fakes.http_process import HttpProcess
from tests.fakes.scripts import TEXT, answer_events, silent_after, whole
from tests.fakes.serve_process import serving
from tests.fakes.waiting import LIFE_SIGN_S, wait_until_async

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object"},
    "strict": False,
}


@pytest.fixture(autouse=True)
def answering(neurons: list[FakeNeuron]) -> None:
    say(neurons, whole)


@pytest.fixture
async def sdk(http: HttpProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk_of(http.base_url) as made:
        yield made


def sdk_of(base_url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{base_url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
    )


def say(neurons: list[FakeNeuron], script: Script) -> None:
    for neuron in neurons:
        neuron.script = script


def asked(neurons: list[FakeNeuron], request_id: str) -> tuple[Message, ...]:
    """The turns that a node was asked with, for a response."""
    for neuron in neurons:
        for request in neuron.generated:
            if f"resp_{request.request_id}" == request_id:
                assert isinstance(request.prompt, ChatPrompt)
                return request.prompt.messages
    raise AssertionError(request_id)


async def calls(request: GenerateRequest) -> AsyncIterator[Event]:
    """Think and call a tool; once its result is there, say so."""
    yield Started(request.request_id, request.model, 3, cached_tokens=2)
    assert isinstance(request.prompt, ChatPrompt)
    if request.prompt.messages[-1].role == "tool":
        yield TextDelta(0, "rain", seq=0, token_ids=(1,))
        yield Finished(0, "stop", seq=1)
    else:
        yield ReasoningDelta(0, "look it up", seq=0, token_ids=(1, 2))
        yield ToolCallStarted(0, 0, "call_1", "weather", seq=1)
        yield ToolCallDelta(0, 0, '{"city": ', seq=2)
        yield ToolCallDelta(0, 0, '"Oslo"}', seq=3)
        yield Finished(0, "tool_calls", seq=4)
    yield Completed(Usage(3, 9, cached_tokens=2, reasoning_tokens=2))


async def test_an_agents_turns_over_the_store_and_over_items(
    sdk: openai.AsyncOpenAI, neurons: list[FakeNeuron]
) -> None:
    say(neurons, calls)
    first = await sdk.responses.create(
        model="small", input="weather?", instructions="Be brief.", tools=[WEATHER]
    )
    assert [item.type for item in first.output] == ["reasoning", "function_call"]
    assert first.usage.output_tokens_details.reasoning_tokens == 2
    result = {"type": "function_call_output", "call_id": "call_1", "output": "wet"}
    second = await sdk.responses.create(
        model="small", input=[result], previous_response_id=first.id, tools=[WEATHER]
    )
    assert second.output_text == "rain"
    history = [{"role": "user", "content": "weather?"}, *first.output, result]
    async with sdk.responses.stream(
        model="small", input=history, tools=[WEATHER], store=False
    ) as stream:
        seen = [event.type async for event in stream]
        third = await stream.get_final_response()
    assert seen[-1] == "response.completed"
    assert third.output_text == "rain"
    call = ToolCallPart("call_1", "weather", '{"city": "Oslo"}')
    conversation = (
        Message("user", (TextPart("weather?"),)),
        Message("assistant", (ReasoningPart("look it up"), call)),
        Message("tool", (ToolResultPart("call_1", (TextPart("wet"),)),)),
    )
    instructed = Message("system", (TextPart("Be brief."),))
    assert asked(neurons, first.id) == (instructed, conversation[0])
    assert asked(neurons, second.id) == conversation
    assert asked(neurons, third.id) == conversation
    with pytest.raises(openai.NotFoundError):
        await sdk.responses.retrieve(third.id)


async def test_what_is_kept_can_be_read_listed_referred_to_and_deleted(
    sdk: openai.AsyncOpenAI, neurons: list[FakeNeuron]
) -> None:
    first = await sdk.responses.create(model="small", input="hi")
    second = await sdk.responses.create(model="small", input="more", previous_response_id=first.id)
    assert await sdk.responses.retrieve(second.id) == second
    listed = await sdk.responses.input_items.list(second.id, order="asc")
    texts = [item.content[0].text for item in listed.data]
    assert texts == ["hi", TEXT, "more"]
    page = await sdk.responses.input_items.list(second.id, limit=2)
    assert [item.content[0].text for item in page.data] == ["more", TEXT]
    assert [item.id async for item in page] == [item.id for item in listed.data[::-1]]
    references = [{"type": "item_reference", "id": item.id} for item in listed.data]
    third = await sdk.responses.create(model="small", input=references)
    assert [part.text for turn in asked(neurons, third.id) for part in turn.content] == texts
    with pytest.raises(openai.BadRequestError, match="it is complete"):
        await sdk.responses.cancel(second.id)
    await sdk.responses.delete(first.id)
    assert (await sdk.responses.retrieve(second.id)).id == second.id
    with pytest.raises(openai.BadRequestError) as broken:
        await sdk.responses.create(model="small", input="x", previous_response_id=second.id)
    assert broken.value.code == "previous_response_not_found"
    assert broken.value.param == "previous_response_id"


async def test_what_is_not_kept_is_not_found(sdk: openai.AsyncOpenAI) -> None:
    for ask in (
        sdk.responses.retrieve,
        sdk.responses.delete,
        sdk.responses.cancel,
        sdk.responses.input_items.list,
    ):
        with pytest.raises(openai.NotFoundError, match="'resp_0'") as missing:
            await ask("resp_0")
        assert missing.value.request_id
    reference = {"type": "item_reference", "id": "msg_0"}
    with pytest.raises(openai.BadRequestError, match="not stored here"):
        await sdk.responses.create(model="small", input="hi", previous_response_id="resp_0")
    with pytest.raises(openai.BadRequestError, match="no item 'msg_0' is stored"):
        await sdk.responses.create(model="small", input=[reference])
    with pytest.raises(openai.BadRequestError, match="background"):
        await sdk.responses.create(model="small", input="hi", background=True)


async def test_what_was_kept_long_enough_is_gone(
    sdk: openai.AsyncOpenAI, http: HttpProcess
) -> None:
    answer = await sdk.responses.create(model="small", input="hi")
    with closing(sqlite3.connect(http.environment.config.parent / "responses.db")) as file:
        with file:
            month_ago = time.time() - 31 * 24 * 3600
            file.execute("UPDATE responses SET used_at = ?", (month_ago,))
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(answer.id)
        await sdk.responses.create(model="small", input="hi")
        assert file.execute("SELECT COUNT(*) FROM responses").fetchone() == (1,)


async def post(client: GatewayClient, **fields: Any) -> Any:
    body = {"model": "small", "input": "hi", "stream": True} | fields
    return await client.request("POST", "/v1/responses", body)


def events_of(sse: str) -> list[dict[str, Any]]:
    lines = [line for line in sse.splitlines() if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def test_a_page_that_cannot_be_is_refused(client: GatewayClient) -> None:
    path = f"/v1/responses/{(await (await post(client, stream=False)).json())['id']}"
    wrong = ["?limit=0", "?limit=101", "?limit=x", "?order=up", "?after=a"]
    # Its first digits are a number that may be, and Python reads no more than 4,300 of them.
    wrong.append(f"?limit=000000001{'0' * 4400}")
    for below in (*(f"/input_items{query}" for query in wrong), "?stream=true"):
        answer = await client.get(path + below)
        assert answer.status == 400
        assert "cannot read request" in (await answer.json())["error"]["message"]


async def test_an_error_before_anything_has_a_status(client: GatewayClient) -> None:
    answer = await post(client, model="nope")
    assert answer.status == 404
    assert (await answer.json())["error"]["code"] == "model_not_found"


async def test_a_failure_in_a_stream_is_its_last_event_and_is_not_kept(
    client: GatewayClient, neurons: list[FakeNeuron]
) -> None:
    async def breaks(request: GenerateRequest) -> AsyncIterator[Event]:
        for event in answer_events(request)[:3]:
            yield event
        yield Failed(ModelUnloaded("cannot go on: dead").info())

    say(neurons, breaks)
    events = events_of((await (await post(client)).body()).decode())
    assert events[-1]["type"] == "response.failed"
    assert "dead" in events[-1]["response"]["error"]["message"]
    answer = await client.get(f"/v1/responses/{events[-1]['response']['id']}")
    assert answer.status == 404
    await answer.body()


async def test_two_workers_and_a_restart_find_what_was_kept(
    tmp_path: Path, neurons: list[FakeNeuron]
) -> None:
    made: list[str] = []
    async with serving(tmp_path, neurons[0], workers=2) as process:
        for _ in range(4):
            # A connection of its own each time, so that either worker has its turn.
            async with sdk_of(process.base_url) as client:
                previous = made[-1] if made else openai.omit
                answer = await client.responses.create(
                    model="small", input="hi", previous_response_id=previous
                )
                made.append(answer.id)
    async with serving(tmp_path, neurons[0]) as process, sdk_of(process.base_url) as client:
        for response_id in made:
            assert (await client.responses.retrieve(response_id)).output_text == TEXT
        listed = await client.responses.input_items.list(made[-1], limit=100)
        assert len(listed.data) == 7


async def test_cold_load_begins_with_an_event_within_a_second(
    tmp_path: Path, neurons: list[FakeNeuron]
) -> None:
    (neuron, _) = neurons
    neuron.restart()
    async with serving(tmp_path, neuron) as process, GatewayClient(process.base_url) as client:
        neuron.load_gate.clear()
        last = time.monotonic()
        answer = await post(client)
        gaps, seen = [], b""
        async for chunk in answer.chunks():
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
            seen += chunk
            if len(gaps) == 4:
                neuron.load_gate.set()
    assert max(gaps[:4]) < LIFE_SIGN_S
    assert b": loading stage=" in seen
    events = events_of(seen.decode())
    assert events[0]["type"] == "response.created"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == TEXT


async def test_a_store_that_cannot_be_used_costs_no_answer_and_a_drain_ends_streams(
    tmp_path: Path, neurons: list[FakeNeuron]
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "responses.db").write_bytes(b"not a database " * 100)
    async with serving(tmp_path, neurons[0], drain_timeout_s=0.5) as process:
        async with sdk_of(process.base_url) as client:
            answer = await client.responses.create(model="small", input="hi")
            assert answer.output_text == TEXT
            with pytest.raises(openai.InternalServerError, match="file is not a database"):
                await client.responses.retrieve(answer.id)
        await wait_until_async(lambda: "response not kept" in process.output())
        say(neurons, silent_after(3))
        async with GatewayClient(process.base_url) as waiting:
            streamed = await post(waiting)
            seen = await streamed.until("are")
            process.terminate()
            seen += (await streamed.body()).decode()
    last = events_of(seen)[-1]
    assert last["type"] == "response.failed"
    assert "shutting down" in last["response"]["error"]["message"]
