"""A device that is given a new process on request."""

import asyncio
from collections.abc import Callable

import pytest

from cortex_core.errors import Conflict, DeviceFailed, InvalidRequest
from cortex_core.ids import DeviceName
from neurond.devices import CPU
from tests.fakes.actor_node import Node, collect, tokens_of
from tests.fakes.waiting import wait_until_async

LONG = 1500


async def test_an_idle_device_gets_a_new_process_and_its_models_back(node: Node) -> None:
    model_id = await node.loaded()
    before, version = node.actor_pid, node.supervisor.state_version

    await node.supervisor.restart_device(CPU, version)

    assert node.actor_pid != before
    assert node.supervisor.health().devices[0].state == "ready"
    await wait_until_async(lambda: node.supervisor.model(model_id).status == "ready")
    assert tokens_of(await collect(node.submit(model_id, [10], max_tokens=2))) == [11, 12]
    assert node.library.fetches == 1


async def test_a_load_that_comes_meanwhile_waits_for_the_new_process(node: Node) -> None:
    model_id = node.library.add("counting")
    restarting = asyncio.create_task(node.supervisor.restart_device(CPU, None))
    await wait_until_async(lambda: node.supervisor.health().devices[0].state == "starting")

    await node.load(model_id)
    await restarting

    assert tokens_of(await collect(node.submit(model_id, [10], max_tokens=1))) == [11]


async def test_only_an_idle_device_is_restarted(node: Node) -> None:
    model_id = await node.loaded()
    stale = node.supervisor.state_version - 1
    running = node.submit(model_id, [10], max_tokens=LONG)
    before = node.actor_pid

    for version in (None, stale):
        with pytest.raises(Conflict):
            await node.supervisor.restart_device(CPU, version)
    with pytest.raises(InvalidRequest, match="no such device"):
        await node.supervisor.restart_device(DeviceName("cuda-7"), None)

    assert len(tokens_of(await collect(running))) == LONG
    assert node.actor_pid == before


async def test_a_device_that_is_restarting_is_not_restarted_again(node: Node) -> None:
    restarting = asyncio.create_task(node.supervisor.restart_device(CPU, None))
    await wait_until_async(lambda: node.supervisor.health().devices[0].state == "starting")

    with pytest.raises(Conflict, match="not idle"):
        await node.supervisor.restart_device(CPU, None)

    await restarting
    assert node.restarts == 1


async def test_a_node_that_stops_ends_a_restart(make_node: Callable[..., Node]) -> None:
    node = make_node()
    await node.start()
    restarting = asyncio.create_task(node.supervisor.restart_device(CPU, None))
    await wait_until_async(lambda: node.supervisor.health().devices[0].state == "starting")

    await node.supervisor.stop()

    with pytest.raises(DeviceFailed):
        await restarting
