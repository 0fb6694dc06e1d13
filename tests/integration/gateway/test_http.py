"""The HTTP server as a real process: both dialects, broken nodes, clients that leave."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cortex_core.canonical import Failed
from cortex_core.errors import ContextLengthExceeded
from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.gateway_client import Answer, GatewayClient, texts_of
from tests.fakes.http_process import MODEL, HttpProcess
from tests.fakes.scripts import (
    TEXT,
    Endless,
    breaks_after,
    held_after,
    silent_after,
    whole,
)
from tests.fakes.waiting import LIFE_SIGN_S, WAIT_S, wait_until_async


def script_all(neurons: list[FakeNeuron], script: Any) -> None:
    for neuron in neurons:
        neuron.script = script


async def test_chat_streams(client: GatewayClient, neurons: list[FakeNeuron]) -> None:
    script_all(neurons, whole)
    answer = await client.chat()
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-request-id"]
    sse = (await answer.body()).decode()
    assert texts_of(sse) == TEXT
    assert sse.endswith("data: [DONE]\n\n")


async def test_messages_streams(client: GatewayClient, neurons: list[FakeNeuron]) -> None:
    script_all(neurons, whole)
    answer = await client.messages()
    assert answer.headers["request-id"].startswith("req_")
    sse = (await answer.body()).decode()
    assert texts_of(sse) == TEXT
    assert "event: message_stop" in sse
    assert "[DONE]" not in sse


async def test_answers_without_a_stream(client: GatewayClient, neurons: list[FakeNeuron]) -> None:
    script_all(neurons, whole)
    chat = await (await client.chat(stream=False)).json()
    assert chat["choices"][0]["message"]["content"] == TEXT
    assert chat["usage"]["total_tokens"] == 8
    message = await (await client.messages(stream=False)).json()
    assert message["content"][0]["text"] == TEXT
    assert message["usage"]["output_tokens"] == 5
    body = {"model": MODEL, "prompt": "hi"}
    completion = await (await client.request("POST", "/v1/completions", body)).json()
    assert completion["choices"][0]["text"] == TEXT


async def test_node_is_asked_with_model_found_and_seed_fixed(
    client: GatewayClient, neurons: list[FakeNeuron]
) -> None:
    await (await client.chat(model="small")).body()
    asked = neurons[0].generated + neurons[1].generated
    assert asked[0].model == MODEL
    assert asked[0].sampling.seed is not None
    assert asked[0].want_prompt_token_ids


@pytest.mark.parametrize("route", ["chat", "messages"])
async def test_client_that_leaves_stops_the_node(
    client: GatewayClient, neurons: list[FakeNeuron], http: HttpProcess, route: str
) -> None:
    script_all(neurons, silent_after(2))
    answer = await (client.chat() if route == "chat" else client.messages())
    await answer.until("How")
    answer.leave()
    await wait_until_async(lambda: neurons[0].cancelled + neurons[1].cancelled)
    await wait_until_async(lambda: http.in_flight() == 0)


async def test_client_that_leaves_while_waiting_for_a_whole_answer_stops_the_node(
    client: GatewayClient, neurons: list[FakeNeuron], http: HttpProcess
) -> None:
    script_all(neurons, silent_after(2))
    asking = asyncio.create_task(client.chat(stream=False))
    await wait_until_async(lambda: neurons[0].generated + neurons[1].generated)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await client.__aexit__()
    await wait_until_async(lambda: neurons[0].cancelled + neurons[1].cancelled)
    await wait_until_async(lambda: http.in_flight() == 0)


@pytest.mark.parametrize("sent", [0, 1, 3, 6], ids=lambda sent: f"after {sent} events")
@pytest.mark.parametrize("route", ["chat", "messages"])
async def test_stream_goes_on_on_another_node(
    client: GatewayClient, neurons: list[FakeNeuron], sent: int, route: str
) -> None:
    neurons[0].script = breaks_after(sent)
    neurons[1].script = whole
    answer = await (client.chat() if route == "chat" else client.messages())
    sse = (await answer.body()).decode()
    assert texts_of(sse) == TEXT
    assert len(neurons[1].generated) == 1
    continued = neurons[1].generated[0].continue_from
    assert (continued is not None) == (sent > 1)
    if continued is not None:
        assert continued.prompt_token_ids == (11, 12, 13)
        assert continued.output_token_ids == tuple(range(sent - 1))
    assert neurons[1].generated[0].sampling.seed == neurons[0].generated[0].sampling.seed


async def test_no_node_left_is_the_dialects_error_in_the_stream(
    client: GatewayClient, neurons: list[FakeNeuron]
) -> None:
    neurons[0].script = neurons[1].script = breaks_after(3)
    sse = (await (await client.chat(n=2)).body()).decode()
    last = [line for line in sse.splitlines() if line.startswith("data: ")][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "node_unavailable"


async def test_early_error_has_a_status_of_its_own(
    client: GatewayClient, neurons: list[FakeNeuron]
) -> None:
    async def too_long(_request: Any) -> Any:
        error = ContextLengthExceeded(prompt_tokens=213369, max_tokens=200000)
        yield Failed(error.info())

    script_all(neurons, too_long)
    answer = await refused_early(client.messages)
    assert answer.status == 400
    error = (await answer.json())["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"] == "prompt is too long: 213369 tokens > 200000 maximum"
    answer = await refused_early(client.chat)
    assert answer.status == 400
    assert (await answer.json())["error"]["code"] == "context_length_exceeded"


async def refused_early(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask until the error came before a sign of life had to, which on a busy machine it may not."""
    for _ in range(10):
        answer = await ask()
        if answer.status != 200:
            return answer
        await answer.body()
    raise AssertionError("every answer began before its error")


@pytest.mark.parametrize("events", [0, 1, 2])
async def test_stream_is_never_silent_for_more_than_a_second(
    client: GatewayClient, neurons: list[FakeNeuron], events: int
) -> None:
    script_all(neurons, silent_after(events))
    answer = await client.chat()
    assert answer.status == 200
    async with asyncio.timeout(WAIT_S):
        gaps: list[float] = []
        last = asyncio.get_running_loop().time()
        async for _ in answer.chunks():
            now = asyncio.get_running_loop().time()
            gaps.append(now - last)
            last = now
            if len(gaps) == 5:
                break
    assert max(gaps) < LIFE_SIGN_S


async def test_slow_client_holds_back_its_own_stream_only(
    client: GatewayClient, neurons: list[FakeNeuron], http: HttpProcess
) -> None:
    endless = Endless()
    script_all(neurons, endless)
    slow = await client.chat()
    script_all(neurons, whole)
    said: list[int] = []
    async with asyncio.timeout(WAIT_S):
        while len(said) < 4 or len(set(said[-4:])) > 1:
            assert texts_of((await (await client.chat()).body()).decode()) == TEXT
            said.append(endless.said)
    # A place is given back behind the last byte of an answer.
    await wait_until_async(lambda: http.in_flight() == 1)
    slow.leave()
    await wait_until_async(lambda: http.in_flight() == 0)


async def test_bursts_and_pauses_keep_their_order(
    client: GatewayClient, neurons: list[FakeNeuron]
) -> None:
    gate = asyncio.Event()
    script_all(neurons, held_after(3, gate))
    answer = await client.messages()
    first = await answer.until("are")
    gate.set()
    rest = (await answer.body()).decode()
    assert texts_of(first + rest) == TEXT


@pytest.mark.parametrize("words", [40_000, 4_000_000])
async def test_a_long_request_that_is_sent_early_is_answered(
    http: HttpProcess, neurons: list[FakeNeuron], words: int
) -> None:
    gate = asyncio.Event()
    script_all(neurons, held_after(3, gate))
    host, port = http.base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(chat_request("hi"))
    await wait_until_async(lambda: any(neuron.generated for neuron in neurons))
    early = chat_request("long " * words)
    writer.write(early)
    unsent = writer.transport.get_write_buffer_size
    await wait_until_async(lambda: unsent() <= max(0, len(early) - 256 * 1024))
    gate.set()
    for _ in range(2):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 200")
        length = int(head.partition("content-length:")[2].split("\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        assert answer["choices"][0]["message"]["content"] == TEXT
    writer.close()


def chat_request(text: str) -> bytes:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": text}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
