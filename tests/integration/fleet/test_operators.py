"""What operators order over the admin socket is done on the nodes, and holds."""

import asyncio
from pathlib import Path

import pytest

from cortex_core.errors import (
    Conflict,
    ModelNotLoaded,
    NodeUnavailable,
)
from cortex_core.ids import ModelId
from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.fleet_actor import FleetActorProcess, see, toml
from tests.fakes.waiting import WAIT_S, wait_until_async

A, B = ModelId("file:a"), ModelId("file:b")


async def test_operators_load_unload_and_drain(tmp_path: Path, free_port: int) -> None:
    async with (
        FakeNeuron({A: 1000, B: 1000}) as neuron,
        FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor,
    ):
        worker = actor.worker()
        await see(worker, A)

        loaded = await actor.admin("load", model="file:a")
        assert loaded["status"] == "ready"
        assert await actor.admin("unload", model="file:a") == ["fake/file:a"]
        assert (neuron.loads, neuron.unloads) == ([A], [A])
        with pytest.raises(ModelNotLoaded):
            await actor.admin("unload", model="file:a")
        drained = await actor.admin("drain", node="fake")
        assert drained["draining"] is True
        with pytest.raises(NodeUnavailable, match="drained by an operator"):
            await asyncio.wait_for(worker.lease(B), WAIT_S)
        await actor.admin("undrain", node="fake")
        await asyncio.wait_for(worker.lease(B), WAIT_S)
        async with asyncio.timeout(WAIT_S):
            # A place is held and counted until the worker's word that it took it has come.
            while [r["in_flight"] for r in (await actor.admin("status"))["replicas"]] != [1]:
                continue
        listed = await actor.admin("models")
        assert {model["id"] for model in listed} == {A, B}


async def test_an_unload_that_fails_says_what_is_unloaded(tmp_path: Path, free_port: int) -> None:
    models = '[[models]]\nid = "file:a"\nmax_replicas = 2\n'
    async with FakeNeuron({A: 1000}, name="n") as one, FakeNeuron({A: 1000}, name="m") as two:
        one.put(A)
        two.put(A)
        more = "[fleet]\npoll_interval_s = 60\n"
        config = toml(one, two, port=free_port, more=more)
        async with FleetActorProcess(tmp_path, config, models) as actor:
            client = actor.worker().client
            await wait_until_async(lambda: len(list(client.index().replicas_of(A))) == 2)
            two.state_version += 1

            with pytest.raises(Conflict, match="; unloaded before that: n/file:a"):
                await actor.admin("unload", model=A)

            assert (one.unloads, two.unloads) == ([A], [])


async def test_a_drained_node_stays_so_when_the_actor_is_killed(
    tmp_path: Path, free_port: int
) -> None:
    async with (
        FakeNeuron({A: 1000}) as neuron,
        FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor,
    ):
        worker = actor.worker()
        await see(worker, A)
        await actor.admin("drain", node="fake")
        await actor.kill()
        actor.start()

        with pytest.raises(NodeUnavailable, match="drained by an operator"):
            await asyncio.wait_for(worker.lease(A), WAIT_S)
        await actor.admin("undrain", node="fake")
        await actor.kill()
        actor.start()

        assert (await asyncio.wait_for(worker.lease(A), WAIT_S)).replica.model_id == A


async def test_an_unload_waits_for_what_runs(tmp_path: Path, free_port: int) -> None:
    async with FakeNeuron({A: 1000}) as neuron:
        neuron.put(A)
        async with FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor:
            worker = actor.worker()
            await see(worker, A, "ready")
            lease = await worker.lease(A)
            unloading = asyncio.create_task(actor.admin("unload", model=A))
            await see(worker, A, "draining")
            assert neuron.unloads == []

            lease.release()

            assert await asyncio.wait_for(unloading, WAIT_S) == ["fake/file:a"]
