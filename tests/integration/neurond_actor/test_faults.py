"""Actors that die, hang, or break their device, for real."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cortex_core.errors import ConfigError, DeviceFailed, ModelNotLoaded
from cortex_core.ids import DeviceName, ModelId
from cortex_core.neuron_api import DeviceHealth, DeviceInfo, LoadRequest
from neurond.devices import CPU, Devices
from neurond.stream_items import StreamItem
from neurond.supervisor.device import DeviceActor
from tests.fakes.actor_node import Node, collect, collect_into, ignore_progress, tokens_of
from tests.fakes.fake_engine import CRASH, HANG, POISON, UNTOLD_STEPS
from tests.fakes.waiting import WAIT_S, wait_until_async

MUCH = 1500
RECOVERY_S = 60.0


async def works_again(node: Node, model_id: ModelId) -> bool:
    await node.load(model_id)
    return tokens_of(await collect(node.submit(model_id, [10], max_tokens=2))) == [11, 12]


async def test_a_killed_actor_is_respawned_and_its_models_are_reloaded(paced_node: Node) -> None:
    model_id, other = await paced_node.loaded(), await paced_node.loaded("other")
    stream = paced_node.submit(model_id, [10], max_tokens=MUCH)
    assert await stream.take(WAIT_S), "it has begun"
    killed = paced_node.actor_pid

    os.kill(killed, signal.SIGKILL)
    with pytest.raises(DeviceFailed, match="signal 9"):
        await collect(stream)

    with pytest.raises(ModelNotLoaded, match="loading"):
        paced_node.submit(model_id, [10])
    assert await works_again(paced_node, model_id)
    assert await works_again(paced_node, other)
    assert paced_node.restarts == 1
    assert paced_node.actor_pid != killed
    # Both came back by themselves: nobody fetched or placed them again.
    assert paced_node.library.fetches == 2


async def test_every_token_published_before_a_death_is_delivered(
    make_node: Callable[..., Node],
) -> None:
    node = make_node(backend="tests.fakes.fake_engine:DyingBackend")
    await node.start()
    stream = node.submit(await node.loaded(), [10], max_tokens=MUCH)

    got: list[StreamItem] = []
    with pytest.raises(DeviceFailed):
        await collect_into(got, stream)

    assert tokens_of(got) == list(range(11, 11 + UNTOLD_STEPS))


async def test_a_stopped_actor_counts_as_hung(make_node: Callable[..., Node]) -> None:
    node = make_node(idle_deadline_s=4.0)
    await node.start()
    model_id = await node.loaded()
    stopped = node.actor_pid

    os.kill(stopped, signal.SIGSTOP)
    await wait_until_async(lambda: node.restarts >= 1, timeout_s=RECOVERY_S)

    assert await works_again(node, model_id)
    with pytest.raises(ProcessLookupError):
        os.kill(stopped, 0)


async def test_a_step_that_never_ends_is_killed(make_node: Callable[..., Node]) -> None:
    node = make_node(step_deadline_s=3.0)
    await node.start()
    model_id = await node.loaded()

    with pytest.raises(DeviceFailed, match="while stepping"):
        await collect(node.submit(model_id, [HANG]))

    assert await works_again(node, model_id)


async def test_a_crash_in_a_step_tells_its_exit_status(node: Node) -> None:
    model_id = await node.loaded()

    with pytest.raises(DeviceFailed, match="status 13"):
        await collect(node.submit(model_id, [CRASH]))

    assert await works_again(node, model_id)


async def test_a_poisoned_device_is_replaced(paced_node: Node) -> None:
    model_id = await paced_node.loaded()
    bystander = paced_node.submit(await paced_node.loaded("other"), [20], max_tokens=MUCH)

    with pytest.raises(Exception, match="device-side assert"):
        await collect(paced_node.submit(model_id, [POISON]))
    with pytest.raises(DeviceFailed, match="device-side assert"):
        await collect(bystander)

    assert await works_again(paced_node, model_id)
    assert paced_node.restarts == 1


async def test_a_model_that_kills_its_actor_is_not_tried_again(node: Node) -> None:
    healthy = await node.loaded()
    fatal = node.library.add("fatal")

    with pytest.raises(DeviceFailed, match="status 14"):
        await node.load(fatal)

    assert await works_again(node, healthy)
    assert node.supervisor.model(fatal).status == "failed"
    assert node.restarts == 1


async def test_a_device_that_is_lost_during_a_load_is_replaced(node: Node) -> None:
    model_id = await node.loaded()
    lost = node.library.add("lost")

    with pytest.raises(DeviceFailed, match="fell off the bus"):
        await node.supervisor.load(LoadRequest(lost), ignore_progress)

    assert await works_again(node, model_id)
    assert node.restarts == 1


async def test_a_runtime_folder_with_too_long_a_path_is_refused(tmp_path: Path) -> None:
    node = Node(tmp_path / ("d" * 100))

    with pytest.raises(ConfigError, match="107"):
        await node.supervisor.start()

    await node.supervisor.stop()


async def test_an_actor_that_cannot_start_is_reported(make_node: Callable[..., Node]) -> None:
    node = make_node(backend="tests.fakes.fake_engine:Nothing")
    await node.supervisor.start()

    assert not await node.devices_ready(RECOVERY_S)

    (health,) = node.supervisor.health().devices
    assert health.state == "failed"
    model_id = node.library.add("counting")
    with pytest.raises(DeviceFailed, match="Nothing"):
        await node.supervisor.load(LoadRequest(model_id), ignore_progress)


@pytest.mark.parametrize("call", ["eventfd", "pidfd_open"])  # before a process, and behind it
async def test_a_spawn_without_descriptors_leaves_nothing_and_is_tried_again(
    make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def short(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    others = set(psutil.Process().children())
    node = make_node()
    await node.start()
    model_id = await node.loaded()
    with monkeypatch.context() as patched:
        patched.setattr(os, call, short)
        os.kill(node.actor_pid, signal.SIGKILL)
        await wait_until_async(lambda: node.restarts >= 2, timeout_s=RECOVERY_S)
        assert set(psutil.Process().children()) == others
        assert list(node.runtime_dir.iterdir()) == []
        with pytest.raises(DeviceFailed, match="Too many open files"):
            await node.load(node.library.add("other"))

    await wait_until_async(lambda: health_of(node, CPU).state == "ready", timeout_s=RECOVERY_S)
    assert await works_again(node, model_id)


async def test_a_defect_in_watching_one_device_leaves_the_others_watched(
    make_node: Callable[..., Node],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = DeviceName("other")
    node = make_node(devices=Devices([DeviceInfo(0, "CPU", 1024, each) for each in (CPU, other)]))
    await node.start()
    tick = DeviceActor.tick

    def defective(actor: DeviceActor, now: float) -> None:
        if actor.info.id == CPU:
            raise RuntimeError("a defect")
        tick(actor, now)

    with monkeypatch.context() as patched:
        patched.setattr(DeviceActor, "tick", defective)
        (process,) = [
            child for child in psutil.Process().children() if child.name() == f"neuron:{other}"
        ]
        process.kill()
        await wait_until_async(lambda: health_of(node, other).restarts == 1, timeout_s=RECOVERY_S)
        await wait_until_async(
            lambda: health_of(node, other).state == "ready", timeout_s=RECOVERY_S
        )
    assert "a defect" in caplog.text


def health_of(node: Node, device: DeviceName) -> DeviceHealth:
    (found,) = [each for each in node.supervisor.health().devices if each.id == device]
    return found
