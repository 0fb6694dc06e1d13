"""Who does not read an answer is cut off, and what it held comes back."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from cortex_core.canonical import Event, GenerateRequest
from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.gateway_client import GatewayClient
from tests.fakes.http_process import HttpProcess
from tests.fakes.large_bodies import BODY_BYTES
from tests.fakes.raw_requests import rest_of, sent
from tests.fakes.scripts import WORDS, answer_events
from tests.fakes.waiting import WAIT_S, wait_until_async

PATH = "/v1/chat/completions"
ONE_BODY = "held_bodies_mb = 1\n"
"""A body that is longer has a place if it is alone."""
LARGE = ("word " * 200_000,) * 32
"""More than what kernels keep for a client."""
LARGE_BYTES = sum(map(len, LARGE))


def large_body(*, stream: bool) -> bytes:
    """A request that has to have its place before it is read."""
    chat = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    return json.dumps(chat).encode().ljust(BODY_BYTES)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_does_not_read_gives_back_what_it_holds(
    tmp_path: Path, neurons: list[FakeNeuron], stream: bool
) -> None:
    begun = asyncio.Event()

    async def large_at_first(request: GenerateRequest) -> AsyncIterator[Event]:
        words = WORDS if begun.is_set() else LARGE
        begun.set()
        for event in answer_events(request, words):
            yield event

    for neuron in neurons:
        neuron.script = large_at_first
    process = HttpProcess(
        tmp_path,
        *(neuron.endpoint for neuron in neurons),
        gateway_toml=ONE_BODY,
        module="tests.fakes.impatient_http_server",
    )
    try:
        async with GatewayClient(process.base_url) as client:
            await client.wait_ready()
            content = large_body(stream=stream)
            with sent(httpx.Request("POST", process.base_url + PATH, content=content)) as unread:
                await asyncio.wait_for(begun.wait(), WAIT_S)
                answer = await client.request("POST", PATH, large_body(stream=False))
                assert answer.status == 200
                await answer.body()
                await wait_until_async(lambda: process.in_flight() == 0)
                # What a model has answered whole has been served, read or not.
                await wait_until_async(lambda: ended(process) == (2, int(stream)))
                assert len(await asyncio.to_thread(rest_of, unread)) < LARGE_BYTES
    finally:
        process.close()


def ended(process: HttpProcess) -> tuple[int, int]:
    """Requests that were counted, and those of them whose client went away."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(process.environment.metrics_dir))
    counted = {"cortex_requests_total": 0, "cortex_requests_cancelled_total": 0}
    for metric in registry.collect():
        for sample in metric.samples:
            if sample.name in counted:
                counted[sample.name] += int(sample.value)
    return counted["cortex_requests_total"], counted["cortex_requests_cancelled_total"]
