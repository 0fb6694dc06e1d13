"""Who gets a node's memory, and what becomes of a load that does not fit or is refused."""

import asyncio
from pathlib import Path

import pytest

from cortex_core.errors import (
    NodeUnavailable,
    OutOfMemory,
)
from cortex_core.ids import ModelId
from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.fleet_actor import FleetActorProcess, see, toml
from tests.fakes.waiting import WAIT_S, wait_until_async

A, B = ModelId("file:a"), ModelId("file:b")


async def test_an_idle_model_gives_way_and_a_busy_one_does_not(
    tmp_path: Path, free_port: int
) -> None:
    async with FakeNeuron({A: 16_000, B: 16_000}, vram_mb=24_000) as neuron:
        neuron.put(A)
        async with FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor:
            worker = actor.worker()
            await see(worker, A, "ready")
            busy = await worker.lease(A)
            swap = asyncio.create_task(worker.lease(B))
            await wait_until_async(lambda: worker.client.index().models[B].queued)
            assert neuron.unloads == []

            busy.release()
            lease = await asyncio.wait_for(swap, WAIT_S)

            assert (neuron.unloads, neuron.loads) == ([A], [B])
            assert lease.replica.model_id == B


async def test_a_model_that_another_gateway_began_to_use_since_the_last_poll_stays(
    tmp_path: Path, free_port: int
) -> None:
    async with FakeNeuron({A: 16_000, B: 16_000}, vram_mb=24_000) as neuron:
        neuron.put(A)
        more = "[fleet]\npoll_interval_s = 60\nloading_poll_interval_s = 0.05\n"
        async with FleetActorProcess(tmp_path, toml(neuron, port=free_port, more=more)) as actor:
            worker = actor.worker()
            await see(worker, A, "ready")
            neuron.use(A, running=1)
            swap = asyncio.create_task(worker.lease(B))
            polls = neuron.polls
            await wait_until_async(lambda: neuron.polls > polls + 2)
            assert neuron.unloads == []

            neuron.use(A, running=0)
            await asyncio.wait_for(swap, WAIT_S)

            assert (neuron.unloads, neuron.loads) == ([A], [B])


async def test_a_worn_device_gets_a_new_process(tmp_path: Path, free_port: int) -> None:
    async with FakeNeuron({A: 1000}) as neuron:
        neuron.put(A)
        more = "[eviction]\ndefrag_after_cycles = 1\n"
        async with FleetActorProcess(tmp_path, toml(neuron, port=free_port, more=more)) as actor:
            await see(actor.worker(), A, "ready")
            assert neuron.restarts == []

            await actor.admin("unload", model=A)

            await wait_until_async(lambda: neuron.restarts == ["cuda-0"])
            # The actor may not have read the node's answer yet.
            async with asyncio.timeout(WAIT_S):
                while (await actor.admin("status"))["nodes"][0]["cycles"]:
                    continue


async def test_a_decision_on_a_stale_state_is_made_again(tmp_path: Path, free_port: int) -> None:
    async with (
        FakeNeuron({A: 1000, B: 1000}) as neuron,
        FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor,
    ):
        worker = actor.worker()
        await see(worker, A)
        neuron.put(B)

        lease = await asyncio.wait_for(worker.lease(A), WAIT_S)

        assert lease.replica.model_id == A
        assert neuron.loads == [A]
        await see(worker, B, "ready")


async def test_out_of_memory_makes_room_once(tmp_path: Path, free_port: int) -> None:
    async with FakeNeuron({A: 1000, B: 1000}) as neuron:
        neuron.put(B)
        neuron.load_errors = [OutOfMemory("cannot load: fragmented")]
        async with FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor:
            worker = actor.worker()
            await see(worker, B, "ready")

            await asyncio.wait_for(worker.lease(A), WAIT_S)

            assert (neuron.loads, neuron.unloads) == ([A, A], [B])


async def test_a_model_too_large_for_every_node_is_refused_with_the_arithmetic(
    tmp_path: Path, free_port: int
) -> None:
    async with (
        FakeNeuron({A: 90_000}) as neuron,
        FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor,
    ):
        worker = actor.worker()
        await see(worker, A)

        with pytest.raises(OutOfMemory, match="24000 MB"):
            await asyncio.wait_for(worker.lease(A), WAIT_S)

        assert neuron.loads == []


async def test_a_broken_node_is_left_and_its_models_are_loaded_elsewhere(
    tmp_path: Path, free_port: int
) -> None:
    async with FakeNeuron({A: 1000}, name="n") as dying, FakeNeuron({A: 1000}, name="m") as other:
        dying.put(A)
        async with FleetActorProcess(tmp_path, toml(dying, other, port=free_port)) as actor:
            worker = actor.worker()
            await see(worker, A, "ready")
            lease = await worker.lease(A)
            await dying.__aexit__()

            worker.client.report_failure(lease.replica.id, NodeUnavailable("broke off").info())
            moved = await asyncio.wait_for(worker.lease(A, failed_on=(lease.replica.id,)), WAIT_S)

            assert (lease.replica.node, moved.replica.node) == ("n", "m")
            assert not worker.client.index().nodes[lease.replica.node].healthy
