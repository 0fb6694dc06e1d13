"""`cortex serve` with all its processes: faults, drains, and what is left afterwards."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from cortexd.http1.errors import ConnectFailed, ConnectionLost
from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.gateway_client import GatewayClient, texts_of
from tests.fakes.notify_socket import NotifySocket
from tests.fakes.process_family import alive
from tests.fakes.scripts import TEXT, held_after, silent_after, whole
from tests.fakes.serve_process import MODEL, ServeProcess, serving
from tests.fakes.waiting import LIFE_SIGN_S, WAIT_S, wait_until_async

Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start a gateway and wait until it is ready."""
    async with AsyncExitStack() as stack:

        async def make(*neurons: FakeNeuron, **options: Any) -> ServeProcess:
            return await stack.enter_async_context(serving(tmp_path, *neurons, **options))

        yield make


async def gone(process: ServeProcess) -> int:
    return await asyncio.to_thread(process.wait_gone)


async def chat(process: ServeProcess) -> str:
    async with GatewayClient(process.base_url) as client:
        return texts_of((await (await client.chat()).body()).decode())


async def counted(process: ServeProcess, sample: str) -> str:
    """Return all metrics once `sample` is there: it is counted behind an answer's last byte."""
    async with (
        GatewayClient(f"http://127.0.0.1:{process.metrics_port}") as metrics,
        asyncio.timeout(WAIT_S),
    ):
        text = ""
        while sample not in text:
            text = (await (await metrics.get("/metrics")).body()).decode()
    return text


async def refused(process: ServeProcess) -> bool:
    """Whether new work is sent away: with an error while a worker still listens, else by TCP."""
    async with GatewayClient(process.base_url) as client:
        try:
            answer = await client.chat()
        except (ConnectFailed, ConnectionLost):
            return True
        return answer.status == 503


async def test_model_is_loaded_on_demand_and_answers(start: Start, neuron: FakeNeuron) -> None:
    process = await start(neuron)
    assert await chat(process) == TEXT
    assert neuron.loads == [MODEL]
    text = await counted(process, f'cortex_requests_total{{model="{MODEL}",node="node0"}} 1.0')
    assert f'cortex_completion_tokens_total{{model="{MODEL}",node="node0"}} 5.0' in text
    assert "cortex_time_to_first_token_seconds_bucket" in text
    assert "cortex_cold_starts_total" in text


async def test_the_default_log_has_each_requests_id_once(start: Start, neuron: FakeNeuron) -> None:
    process = await start(neuron)
    posts: list[tuple[str, dict[str, Any], int, str]] = [
        ("/v1/chat/completions", {}, 200, "request completed"),
        ("/v1/messages", {"max_tokens": 9}, 200, "request completed"),
        ("/v1/chat/completions", {"temperature": -1}, 400, "request refused"),
        ("/v1/messages", {"model": "smaal", "max_tokens": 9}, 404, "request refused"),
        ("/v1/nowhere", {}, 404, "request refused"),
    ]
    asked: list[tuple[str, str, str]] = []
    async with GatewayClient(process.base_url) as client:
        for path, changes, status, phrase in posts:
            message = {"role": "user", "content": "hi"}
            body = {"model": "small", "messages": [message]} | changes
            answer = await client.request("POST", path, body)
            assert answer.status == status
            await answer.body()
            asked.append((answer.headers["x-request-id"], path, phrase))
    last = len(posts)
    # An answer's line may be written behind its last byte.
    await wait_until_async(lambda: sum(id_ in process.output() for id_, *_ in asked) == last)
    lines = process.output().splitlines()
    for request_id, path, phrase in asked:
        (line,) = [line for line in lines if request_id in line]
        assert line.startswith("info ")
        assert f"{phrase} request_id={request_id} path={path} " in line
        if phrase == "request completed":
            assert f" model={MODEL} node=node0 prompt_tokens=" in line
            assert " completion_tokens=5 ttft_s=" in line
            assert " duration_s=" in line


async def test_cold_load_says_something_each_second(start: Start, neuron: FakeNeuron) -> None:
    process = await start(neuron)
    neuron.load_gate.clear()
    async with GatewayClient(process.base_url) as client:
        began_at = time.monotonic()
        answer = await client.chat()
        assert answer.status == 200
        assert time.monotonic() - began_at < LIFE_SIGN_S
        last, gaps = began_at, []
        seen = b""
        async for chunk in answer.chunks():
            now = time.monotonic()
            gaps.append(now - last)
            last = now
            seen += chunk
            if len(gaps) == 4:
                neuron.load_gate.set()
    assert max(gaps[:4]) < LIFE_SIGN_S
    assert b": loading" in seen
    assert texts_of(seen.decode()) == TEXT


async def test_client_that_leaves_while_loading_leaves_the_queue(
    start: Start, neuron: FakeNeuron
) -> None:
    process = await start(neuron)
    neuron.load_gate.clear()
    async with GatewayClient(process.base_url) as client:
        answer = await client.chat()
        await answer.until("loading")
        answer.leave()
    neuron.load_gate.set()
    assert await chat(process) == TEXT
    assert len(neuron.generated) == 1


async def test_sigterm_lets_streams_finish(start: Start, neuron: FakeNeuron) -> None:
    gate = asyncio.Event()
    neuron.script = held_after(3, gate)
    process = await start(neuron, drain_timeout_s=2 * WAIT_S)
    async with GatewayClient(process.base_url) as client, GatewayClient(process.base_url) as idle:
        await (await idle.get("/health")).body()
        answer = await client.chat()
        seen = await answer.until("are")
        process.terminate()
        await wait_until_async(lambda: "gateway stops" in process.output())
        async with asyncio.timeout(WAIT_S):
            while not await refused(process):
                continue
        gate.set()
        seen += (await answer.body()).decode()
    assert texts_of(seen) == TEXT
    assert await gone(process) == 0
    assert process.left_behind() == []


@pytest.mark.parametrize("route", ["chat", "messages"])
async def test_streams_longer_than_the_drain_get_their_dialects_error(
    start: Start, neuron: FakeNeuron, route: str
) -> None:
    neuron.script = silent_after(3)
    process = await start(neuron, drain_timeout_s=0.5)
    async with GatewayClient(process.base_url) as client:
        answer = await (client.chat() if route == "chat" else client.messages())
        await answer.until("are")
        process.terminate()
        rest = (await answer.body()).decode()
    assert "shutting down" in rest
    assert ('"shutting_down"' if route == "chat" else "event: error") in rest
    assert await gone(process) == 0


async def test_idle_connections_do_not_delay_the_exit(start: Start, neuron: FakeNeuron) -> None:
    process = await start(neuron, drain_timeout_s=10 * WAIT_S)
    async with GatewayClient(process.base_url) as client:
        await (await client.get("/health")).body()
        process.terminate()
        assert await gone(process) == 0


async def test_second_signal_is_quick(start: Start, neuron: FakeNeuron) -> None:
    neuron.script = silent_after(3)
    process = await start(neuron, drain_timeout_s=10 * WAIT_S)
    async with GatewayClient(process.base_url) as client:
        answer = await client.chat()
        await answer.until("are")
        process.terminate()
        await wait_until_async(lambda: "gateway stops" in process.output())
        process.terminate()
        assert await gone(process) == 0
    assert process.left_behind() == []


async def test_killed_worker_is_replaced_and_its_counts_are_forgotten(
    start: Start, neuron: FakeNeuron
) -> None:
    neuron.script = silent_after(3)
    process = await start(neuron)
    async with GatewayClient(process.base_url) as client:
        answer = await client.chat()
        await answer.until("are")
        process.member("http_server", worker=True).kill()
        with pytest.raises(ConnectionLost):
            await answer.body()
    await wait_until_async(lambda: neuron.cancelled)
    neuron.script = whole
    assert await chat(process) == TEXT


async def test_killed_gunicorn_comes_back_on_the_same_socket(
    start: Start, neuron: FakeNeuron
) -> None:
    process = await start(neuron)
    assert await chat(process) == TEXT
    master = process.member("http_server")
    worker = process.member("http_server", worker=True)
    master.kill()
    await wait_until_async(lambda: not alive(worker))
    assert await chat(process) == TEXT
    assert process.member("http_server").pid != master.pid


async def test_killed_fleet_actor_stops_nobody(start: Start, neuron: FakeNeuron) -> None:
    gate = asyncio.Event()
    neuron.script = held_after(3, gate)
    process = await start(neuron)
    async with GatewayClient(process.base_url) as client:
        answer = await client.chat()
        seen = await answer.until("are")
        actor = process.member("cortexd.fleet_actor")
        actor.kill()
        neuron.script = whole
        assert await chat(process) == TEXT
        gate.set()
        seen += (await answer.body()).decode()
    assert texts_of(seen) == TEXT
    await wait_until_async(
        lambda: {one.pid for one in process.family.running("cortexd.fleet_actor")} - {actor.pid},
    )


async def test_hung_fleet_actor_is_replaced(start: Start, neuron: FakeNeuron) -> None:
    process = await start(neuron)
    actor = process.member("cortexd.fleet_actor")
    actor.suspend()

    # A request that needs the actor waits, and is answered by the next one.
    assert await chat(process) == TEXT

    assert not alive(actor)
    assert "no sign of life" in process.output()
    process.terminate()
    assert await gone(process) == 0
    assert process.left_behind() == []


async def test_hung_master_is_replaced_and_workers_serve_meanwhile(
    start: Start, neuron: FakeNeuron
) -> None:
    process = await start(neuron)
    master = process.member("http_server")
    master.suspend()

    assert await chat(process) == TEXT
    await wait_until_async(
        lambda: (
            {one.pid for one in process.family.running("http_server")} - {master.pid}
            and not alive(master)
        )
    )

    assert "no sign of life" in process.output()
    assert await chat(process) == TEXT
    process.terminate()
    assert await gone(process) == 0
    assert process.left_behind() == []


async def test_killed_parent_takes_everything_with_it(start: Start, neuron: FakeNeuron) -> None:
    process = await start(neuron)
    await wait_until_async(lambda: len(process.family.alive()) == 4)
    process.process.kill()
    await gone(process)
    again = await start(neuron)
    assert await chat(again) == TEXT


async def test_port_in_use_is_told(tmp_path: Path, neuron: FakeNeuron) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = ServeProcess(tmp_path, neuron.endpoint, port=taken.getsockname()[1])
        assert await gone(process) == 1
    assert "cannot listen on 127.0.0.1" in process.output()
    assert "Address already in use" in process.output()
    assert process.left_behind() == []


async def test_metrics_port_in_use_is_told(tmp_path: Path, neuron: FakeNeuron) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        override = {"CORTEX_GATEWAY__METRICS_LISTEN": address}
        process = ServeProcess(tmp_path, neuron.endpoint, environment=override)
        assert await gone(process) == 1
    assert f"cannot listen on {address}" in process.output()
    assert "gateway.metrics_listen" in process.output()


async def test_several_workers_count_together(start: Start, neuron: FakeNeuron) -> None:
    process = await start(neuron, environment={"CORTEX_GATEWAY__WORKERS": "3"})
    answers = await asyncio.gather(*(chat(process) for _ in range(30)))
    assert answers == [TEXT] * 30
    await counted(process, f'cortex_requests_total{{model="{MODEL}",node="node0"}} 30.0')
    await wait_until_async(lambda: len(process.family.running("http_server")) == 4)


async def test_folder_of_another_gateway_is_left_alone(
    start: Start, neuron: FakeNeuron, tmp_path: Path
) -> None:
    first = await start(neuron)
    second = ServeProcess(tmp_path, neuron.endpoint)
    assert await gone(second) == 2
    assert "another gateway has its sockets there" in second.output()
    assert await chat(first) == TEXT


async def test_wrong_config_is_told(tmp_path: Path) -> None:
    process = ServeProcess(tmp_path, "beast")
    assert await gone(process) == 2
    assert "endpoint" in process.output()


async def test_systemd_is_told(start: Start, neuron: FakeNeuron, tmp_path: Path) -> None:
    notify = NotifySocket(tmp_path / "notify")
    try:
        process = await start(neuron, environment={"NOTIFY_SOCKET": str(notify.path)})
        # The parent's own probe may come after the client's.
        await wait_until_async(lambda: notify.has("READY=1"))
        process.terminate()
        assert await gone(process) == 0
    finally:
        notify.close()
    assert notify.messages == ["READY=1", "STOPPING=1"]


async def test_systemds_watchdog_hears_of_the_parent_until_its_end(
    start: Start, neuron: FakeNeuron, tmp_path: Path
) -> None:
    gate = asyncio.Event()
    neuron.script = held_after(3, gate)
    notify = NotifySocket(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": str(notify.path), "WATCHDOG_USEC": "100000"}
    try:
        process = await start(neuron, environment=environment, drain_timeout_s=10 * WAIT_S)
        await wait_until_async(lambda: notify.has("READY=1"))
        async with GatewayClient(process.base_url) as client:
            answer = await client.chat()
            await answer.until("are")
            process.terminate()
            await wait_until_async(lambda: notify.has("STOPPING=1"))
            told = len(notify.messages)
            await wait_until_async(lambda: "WATCHDOG=1" in notify.messages[told:])
            gate.set()
            assert await gone(process) == 0
    finally:
        notify.close()


async def test_without_any_node_it_runs_and_says_so(start: Start) -> None:
    process = await start()
    async with GatewayClient(process.base_url) as client:
        answer = await client.chat(stream=False)
        assert answer.status == 503
        told = (await answer.json())["error"]["message"]
        assert told == f"cannot load {MODEL}: no neuron is configured"
