"""Nothing is left: after a stop, after kill -9, after a signal during a load."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cortex_core.errors import ShuttingDown
from cortex_core.neuron_api import LoadRequest
from tests.fakes.actor_node import Host, Node, collect, ignore_progress, tokens_of, until_stuck
from tests.fakes.fake_engine import HANG
from tests.fakes.process_family import alive
from tests.fakes.waiting import WAIT_S, wait_until, wait_until_async

MUCH = 1500
REPOSITORY = Path(__file__).parents[3]

Spawn = Callable[..., tuple[subprocess.Popen[str], list[psutil.Process]]]


async def test_nothing_is_left_after_stop(make_node: Callable[..., Node]) -> None:
    before = Host()
    node = make_node()
    await node.start()
    stream = node.submit(await node.loaded(), [10], max_tokens=MUCH)
    await stream.take(WAIT_S)
    os.kill(node.actor_pid, signal.SIGKILL)
    await wait_until_async(lambda: node.restarts == 1)
    assert await node.devices_ready(WAIT_S)

    await node.supervisor.stop()

    assert before.added() == []
    assert list(node.runtime_dir.iterdir()) == []


async def test_drain_lets_streams_finish(paced_node: Node) -> None:
    model_id = await paced_node.loaded()
    stream = paced_node.submit(model_id, [10], max_tokens=MUCH)
    await wait_until_async(lambda: stream.paused)

    drain = asyncio.create_task(paced_node.supervisor.drain(60.0))
    await wait_until_async(lambda: paced_node.supervisor.draining)
    with pytest.raises(ShuttingDown):
        paced_node.submit(model_id, [10])
    with pytest.raises(ShuttingDown):
        await paced_node.load(model_id)

    assert len(tokens_of(await collect(stream))) == MUCH
    await drain
    assert paced_node.supervisor.health().draining


async def test_drain_fails_what_does_not_finish(paced_node: Node) -> None:
    model_id = await paced_node.loaded()
    stream = paced_node.submit(model_id, [10], max_tokens=MUCH)
    await wait_until_async(lambda: stream.paused)

    await paced_node.supervisor.drain(0.05)

    with pytest.raises(ShuttingDown):
        await collect(stream)
    await wait_until_async(lambda: paced_node.in_flight(model_id) == 0)


async def test_stop_during_a_load_fails_it(make_node: Callable[..., Node]) -> None:
    node = make_node()
    await node.start()
    slow = node.library.add("slow")
    load = asyncio.create_task(node.supervisor.load(LoadRequest(slow), ignore_progress))
    await wait_until_async(lambda: node.supervisor.model(slow).status == "loading")

    await node.supervisor.stop()

    with pytest.raises(ShuttingDown):
        await load


async def test_stop_does_not_wait_for_a_hung_step(make_node: Callable[..., Node]) -> None:
    before = Host()
    node = make_node(stop_grace_s=0.2)
    await node.start()
    stream = node.submit(await node.loaded(), [HANG])
    await until_stuck(node)

    await asyncio.wait_for(node.supervisor.stop(), WAIT_S)

    with pytest.raises(ShuttingDown):
        await collect(stream)
    assert before.added() == []


async def test_stop_while_starting(make_node: Callable[..., Node]) -> None:
    before = Host()
    node = make_node()
    await node.supervisor.start()

    await asyncio.wait_for(node.supervisor.stop(), WAIT_S)
    await node.supervisor.stop()

    assert before.added() == []


@pytest.fixture
def spawn_script(
    tmp_path: Path,
) -> Iterator[Spawn]:
    started: list[subprocess.Popen[str]] = []

    def spawn(*args: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.node_script", str(tmp_path), *args],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert line["actor"] in line["children"]
        return process, [psutil.Process(pid) for pid in line["children"]]

    yield spawn
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_killing_the_supervisor_ends_its_actors(tmp_path: Path, spawn_script: Spawn) -> None:
    process, children = spawn_script()

    process.kill()
    process.wait()

    wait_until(lambda: not any(map(alive, children)))
    assert not (tmp_path / "imported-again").exists()


async def test_a_successor_removes_the_sockets_of_a_killed_supervisor(
    tmp_path: Path,
    make_node: Callable[..., Node],
    spawn_script: Spawn,
) -> None:
    process, children = spawn_script()
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(alive, children)))
    left = set((tmp_path / "run").iterdir())
    assert len(left) == 2

    node = make_node()
    await node.start()

    assert left.isdisjoint(node.runtime_dir.iterdir())
    assert len(list(node.runtime_dir.iterdir())) == 2


@pytest.mark.parametrize("arguments", [(), ("slow",)])
def test_sigterm_leaves_nothing(
    tmp_path: Path,
    arguments: tuple[str, ...],
    spawn_script: Spawn,
) -> None:
    process, children = spawn_script(*arguments)

    process.terminate()
    output, _ = process.communicate(timeout=WAIT_S)

    assert (process.returncode, output) == (0, "clean\n")
    assert not any(map(alive, children))


def test_exiting_without_a_stop_waits_for_nobody(
    spawn_script: Spawn,
) -> None:
    process, children = spawn_script()

    # KeyboardInterrupt: nothing handles it, so the interpreter ends as it does after any error.
    process.send_signal(signal.SIGINT)
    process.wait(timeout=WAIT_S)

    assert process.returncode != 0
    wait_until(lambda: not any(map(alive, children)))
