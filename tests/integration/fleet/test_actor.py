"""The fleet actor as a real process, with real HTTP nodes: who waits, and the actor's own end."""

import asyncio
import urllib.request
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from cortex_core.canonical import Loading
from cortex_core.errors import (
    ModelNotFound,
    Overloaded,
    QueueFull,
)
from cortex_core.ids import ModelId, ReplicaId, RequestId, new_request_id
from cortex_core.neuron_api import LoadProgress
from cortexd.fleet.client import Lease
from cortexd.fleet.layout import started_column
from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.fleet_actor import FleetActorProcess, see, toml
from tests.fakes.waiting import LIFE_SIGN_S, WAIT_S, wait_until_async

A, B = ModelId("file:a"), ModelId("file:b")


async def test_twenty_waiters_share_one_cold_load(tmp_path: Path, free_port: int) -> None:
    async with FakeNeuron({A: 1000}) as neuron:
        neuron.load_gate.clear()
        async with FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor:
            workers = [actor.worker(0), actor.worker(1)]
            await see(workers[0], A)
            tasks = [asyncio.create_task(workers[n % 2].lease(A)) for n in range(20)]
            await wait_until_async(lambda: neuron.loads)
            neuron.load_gate.set()
            leases = await asyncio.wait_for(asyncio.gather(*tasks), WAIT_S)

            assert neuron.loads == [A]
            assert {lease.replica.node for lease in leases} == {"fake"}
            again = await asyncio.wait_for(workers[0].lease(A), WAIT_S)
            assert again.replica == leases[0].replica


async def test_a_waiter_hears_of_the_load_at_least_once_a_second(
    tmp_path: Path, free_port: int
) -> None:
    async with FakeNeuron({A: 1000}) as neuron:
        neuron.load_gate.clear()
        async with FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor:
            worker = actor.worker()
            await see(worker, A)
            loop = asyncio.get_running_loop()
            heard: list[Loading] = []
            gaps: list[float] = []
            last = loop.time()
            async with aclosing(worker.client.acquire(A, new_request_id())) as steps:
                async for step in steps:
                    gaps.append(loop.time() - last)
                    last = loop.time()
                    if isinstance(step, Lease):
                        break
                    heard.append(step)
                    if neuron.loads and len(heard) > 2:
                        neuron.progress(A, LoadProgress("loading", 0.5, eta_s=3.0))
                    if step.progress == 0.5:
                        neuron.load_gate.set()

    assert max(gaps) < LIFE_SIGN_S
    assert Loading("loading", 0.5, 3.0) in heard


async def test_a_full_queue_refuses_at_once(tmp_path: Path, free_port: int) -> None:
    async with FakeNeuron({A: 1000}) as neuron:
        neuron.load_gate.clear()
        more = "[admission]\nmax_queue_depth = 2\n"
        async with FleetActorProcess(tmp_path, toml(neuron, port=free_port, more=more)) as actor:
            worker = actor.worker()
            await see(worker, A)
            waiting = [asyncio.create_task(worker.lease(A)) for _ in range(2)]
            await wait_until_async(lambda: neuron.loads)

            with pytest.raises(QueueFull) as refused:
                await worker.lease(A)

            assert refused.value.retry_after_s
            neuron.load_gate.set()
            await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S)


async def test_a_wait_for_a_place_is_bounded(tmp_path: Path, free_port: int) -> None:
    async with FakeNeuron({A: 1000}) as neuron:
        neuron.put(A)
        more = "[admission]\nmax_in_flight = 1\nmax_wait_s = 0.5\n"
        async with FleetActorProcess(tmp_path, toml(neuron, port=free_port, more=more)) as actor:
            worker = actor.worker()
            await see(worker, A, "ready")
            await worker.lease(A)

            with pytest.raises(Overloaded) as ended:
                await asyncio.wait_for(worker.lease(A), WAIT_S)

            assert ended.value.retry_after_s


async def test_a_released_place_goes_to_who_waits(tmp_path: Path, free_port: int) -> None:
    async with FakeNeuron({A: 1000}) as neuron:
        neuron.put(A)
        more = "[admission]\nmax_in_flight = 1\n"
        async with FleetActorProcess(tmp_path, toml(neuron, port=free_port, more=more)) as actor:
            first, second = actor.worker(0), actor.worker(1)
            await see(first, A, "ready")
            lease = await first.lease(A)
            waiting = asyncio.create_task(second.lease(A))
            await wait_until_async(lambda: first.client.index().models[A].queued)

            lease.release()

            assert (await asyncio.wait_for(waiting, WAIT_S)).replica.id == "fake/file:a"


async def test_a_node_that_had_no_room_is_not_asked_for_as_long_as_it_said(
    tmp_path: Path, free_port: int
) -> None:
    async with FakeNeuron({A: 1000}) as neuron:
        neuron.put(A)
        async with FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor:
            turned_away, other = actor.worker(0), actor.worker(1)
            await see(turned_away, A, "ready")
            lease = await asyncio.wait_for(turned_away.lease(A), WAIT_S)
            name = lease.replica.id
            lease.release()
            loop = asyncio.get_running_loop()
            reported_at = loop.time()
            turned_away.client.report_full(name, 2.0)
            await wait_until_async(lambda: other.client.index().replicas[name].full)

            waiting = [turned_away.lease(A, failed_on=(name,)), other.lease(A)]
            leases = await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S)

            assert {lease.replica.id for lease in leases} == {name}
            assert loop.time() - reported_at >= 1.9


async def test_a_waiter_that_leaves_gives_up_its_place(tmp_path: Path, free_port: int) -> None:
    async with FakeNeuron({A: 1000}) as neuron:
        neuron.load_gate.clear()
        async with FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor:
            worker = actor.worker()
            await see(worker, A)
            waiting = asyncio.create_task(worker.lease(A))
            await wait_until_async(lambda: worker.client.index().models[A].queued)

            waiting.cancel()

            await wait_until_async(lambda: not worker.client.index().models[A].queued)
            neuron.load_gate.set()
            await see(worker, A, "ready")
            column = worker.client.index().replicas[ReplicaId("fake/file:a")].column
            assert worker.counts.sum(column) == 0


async def test_a_killed_actor_is_followed_by_one_that_knows_the_same(
    tmp_path: Path, free_port: int
) -> None:
    async with FakeNeuron({A: 1000, B: 1000}) as neuron:
        neuron.put(A)
        async with FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor:
            worker = actor.worker()
            await see(worker, A, "ready")
            before = worker.client.snapshot()
            held = await worker.lease(A)
            neuron.load_gate.clear()
            waiting = asyncio.create_task(worker.lease(B))
            await wait_until_async(lambda: neuron.loads)

            await actor.kill()
            while_away = await asyncio.wait_for(worker.lease(A), WAIT_S)
            actor.start()
            await wait_until_async(lambda: worker.client.snapshot().version > before.version + 1)
            neuron.load_gate.set()
            moved = await asyncio.wait_for(waiting, WAIT_S)

            assert while_away.replica.column == held.replica.column
            assert worker.client.index().replicas[held.replica.id].column == held.replica.column
            assert worker.counts.sum(held.replica.column) == 2
            assert moved.replica.model_id == B
            assert neuron.loads.count(B) == 1


async def test_requests_put_while_the_actor_is_away_are_served_later(
    tmp_path: Path, free_port: int
) -> None:
    async with (
        FakeNeuron({A: 1000}) as neuron,
        FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor,
    ):
        worker = actor.worker()
        await see(worker, A)
        await actor.kill()
        waiting = asyncio.create_task(worker.lease(A))
        actor.start()

        lease = await asyncio.wait_for(waiting, WAIT_S)

    assert lease.replica.model_id == A


async def test_names_are_resolved_and_near_ones_are_named(tmp_path: Path, free_port: int) -> None:
    models = '[aliases]\nsmall = "file:a"\n'
    async with (
        FakeNeuron({"file:a": 1000, "hf:org/model": 1000}) as neuron,
        FleetActorProcess(tmp_path, toml(neuron, port=free_port), models) as actor,
    ):
        client = actor.worker().client
        await wait_until_async(lambda: client.snapshot().models)

        assert client.resolve("small") == "file:a"
        assert client.resolve("org/model") == "hf:org/model"
        with pytest.raises(ModelNotFound, match="org/model"):
            client.resolve("org/modle")


async def test_metrics_and_health_are_served(tmp_path: Path, free_port: int) -> None:
    def get(path: str) -> str:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{free_port}{path}", timeout=WAIT_S
        ) as answer:
            text: str = answer.read().decode()
            return text

    async with (
        FakeNeuron({A: 1000}) as neuron,
        FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor,
    ):
        worker = actor.worker()
        await see(worker, A)
        await asyncio.wait_for(worker.lease(A), WAIT_S)

        text = ""
        async with asyncio.timeout(WAIT_S):
            # A place is held and counted until the worker's word that it took it has come.
            while 'cortex_model_in_flight{model="file:a",node="fake"} 1.0' not in text:
                text = await asyncio.to_thread(get, "/metrics")
        health = msgspec.json.decode(await asyncio.to_thread(get, "/health"))

    assert 'cortex_cold_starts_total{model="file:a",node="fake"} 1.0' in text
    assert 'cortex_node_up{node="fake"} 1.0' in text
    assert 'cortex_model_queue_depth{model="file:a"} 0.0' in text
    assert health == {"status": "ok", "nodes_up": 1}


async def test_sigterm_ends_the_actor_and_removes_its_sockets(
    tmp_path: Path, free_port: int
) -> None:
    async with (
        FakeNeuron({A: 1000}) as neuron,
        FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor,
    ):
        await see(actor.worker(), A)
        assert actor.process is not None

        status = await actor.process.stop(WAIT_S)

        assert status.returncode == 0
        assert list((tmp_path / "run").iterdir()) == []


async def test_a_place_is_counted_once_and_given_back_once(tmp_path: Path, free_port: int) -> None:
    async with FakeNeuron({A: 1000}) as neuron:
        neuron.put(A)
        async with FleetActorProcess(tmp_path, toml(neuron, port=free_port)) as actor:
            worker = actor.worker(2)
            await see(worker, A, "ready")

            lease = await worker.lease(A, RequestId("one"))
            counted = worker.counts.sum(lease.replica.column)
            lease.release()
            lease.release()

            assert (counted, worker.counts.sum(lease.replica.column)) == (1, 0)
            assert worker.counts.sum(started_column(lease.replica.column)) == 1
