"""What a worker holds of large bodies has a bound, and comes back on every path."""

import asyncio
import json
from pathlib import Path

from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.gateway_client import Answer, GatewayClient
from tests.fakes.http_process import HttpProcess
from tests.fakes.large_bodies import BODY_BYTES, HELD_MB, check_held_bodies
from tests.fakes.scripts import held_after, whole

LIMIT = f"held_bodies_mb = {HELD_MB}\n"


async def test_large_bodies_wait_for_each_other(tmp_path: Path) -> None:
    process = HttpProcess(tmp_path, gateway_toml=LIMIT)
    try:
        async with GatewayClient(process.base_url) as client:
            await client.wait_ready()
            await check_held_bodies(process.port, "/v1/chat/completions", status=400)
    finally:
        process.close()


async def test_a_body_is_held_until_its_answer_has_ended(
    tmp_path: Path, neurons: list[FakeNeuron]
) -> None:
    gate = asyncio.Event()
    for neuron in neurons:
        neuron.script = held_after(2, gate)
    process = HttpProcess(tmp_path, *(neuron.endpoint for neuron in neurons), gateway_toml=LIMIT)
    chat = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    large = json.dumps(chat).encode().ljust(BODY_BYTES)
    try:
        async with GatewayClient(process.base_url) as client:
            await client.wait_ready()

            async def ask() -> Answer:
                return await client.request("POST", "/v1/chat/completions", large)

            first, second = await ask(), await ask()
            third = asyncio.create_task(ask())
            for _ in range(3):
                (await client.chat()).leave()  # a small one waits for nobody
            assert not third.done()
            first.leave()
            assert (await third).status == 200
            gate.set()
            assert b"[DONE]" in await second.body()
            for neuron in neurons:
                neuron.script = whole
            assert b"[DONE]" in await (await ask()).body()
    finally:
        process.close()
