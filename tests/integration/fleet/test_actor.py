"""The fleet actor as a real process, with real HTTP nodes."""

import asyncio
from pathlib import Path

import pytest

from cortex_core.canonical import Loading
from cortex_core.ids import ModelId, new_request_id
from cortexd.fleet.client import Lease
from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.fleet_actor import FleetActorProcess
from tests.fakes.waiting import wait_until_async


def toml(*neurons: FakeNeuron, port: int, more: str = "") -> str:
    nodes = "".join(
        f'[[neurons]]\nname = "{n.name}"\nendpoint = "{n.endpoint}"\n' for n in neurons
    )
    return f'[gateway]\nmetrics_listen = "127.0.0.1:{port}"\n{more}\n{nodes}'


async def test_twenty_waiters_share_one_cold_load(tmp_path: Path, free_port: int) -> None:
    async with FakeNeuron({"file:a": 1000}) as neuron:
        neuron.load_gate.clear()
        async with FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor:
            worker = actor.worker()
            await wait_until_async(lambda: worker.client.snapshot().models)
            tasks = [asyncio.create_task(worker.lease("file:a")) for _ in range(20)]
            await wait_until_async(lambda: neuron.loads)
            neuron.load_gate.set()
            leases = await asyncio.wait_for(asyncio.gather(*tasks), 10)

    assert neuron.loads == ["file:a"]
    assert {lease.replica.node for lease in leases} == {"fake"}
