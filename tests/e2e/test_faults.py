"""Parts of a running fleet are killed, stopped and cut off, for real; the client sees no gap."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.fakes.fleet_process import FleetProcess, fleet_process
from tests.fakes.model_cache import SMOLLM2
from tests.fakes.process_family import alive
from tests.fakes.processes import survivors
from tests.fakes.raw_requests import sent
from tests.fakes.sse_stream import SseStream
from tests.fakes.waiting import LIFE_SIGN_S, wait_until

pytestmark = pytest.mark.model

TOKENS = 96
TRIES = 20
"""To stop an actor before it has an answer whole, which takes it a quarter of a second."""

STORY: dict[str, Any] = {
    "model": SMOLLM2,
    "messages": [{"role": "user", "content": "Tell a story about a fox."}],
    "temperature": 0,
    "max_tokens": TOKENS,
    "ignore_eos": True,
    "stream_options": {"include_usage": True},
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    """A fleet of this module's own; each test leaves it healed."""
    with fleet_process(
        tmp_path_factory.mktemp("faulty"),
        neuron_toml=f'drain_timeout_s = 120\n[[default_models]]\nmodel_id="{SMOLLM2}"',
    ) as started:
        yield started
        started.stop()


@pytest.fixture(scope="module")
def story(faulty: FleetProcess) -> str:
    """What an undisturbed stream says."""
    with SseStream(faulty.api, STORY) as stream:
        return stream.rest().text


def ask(fleet: FleetProcess) -> str:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    answer = fleet.openai.chat.completions.create(
        model=SMOLLM2, messages=question, temperature=0, max_tokens=16
    )
    return answer.choices[0].message.content or ""


@contextlib.contextmanager
def halfway(fleet: FleetProcess) -> Iterator[tuple[SseStream, psutil.Process]]:
    """A stream in the midst of its answer, and the actor, which is stopped and goes on after it."""
    for _ in range(TRIES):
        with SseStream(fleet.api, STORY) as stream:
            stream.read(3)
            actor = fleet.stopped_actor()
            if actor is None:
                continue
            try:
                yield stream, actor
            finally:
                with contextlib.suppress(psutil.NoSuchProcess):
                    actor.resume()
            return
    raise AssertionError("no answer took long enough to be stopped")


def check_whole(stream: SseStream, story: str) -> None:
    """The stream ended as if nothing had happened: no token lost, none doubled."""
    assert stream.error is None
    assert stream.text == story
    assert stream.finish_reason == "length"
    assert stream.usage is not None
    assert stream.usage["completion_tokens"] == TOKENS
    assert stream.longest_silence_s < LIFE_SIGN_S


def test_a_killed_device_actor_costs_no_token(faulty: FleetProcess, story: str) -> None:
    restarts = faulty.device().restarts
    continued = faulty.metric("cortex_streams_continued_total")
    with halfway(faulty) as (stream, actor):
        actor.kill()
        check_whole(stream.rest(), story)
    assert faulty.device().restarts == restarts + 1
    assert faulty.actor().pid != actor.pid
    assert faulty.metric("cortex_streams_continued_total") == continued + 1
    faulty.wait_idle()


def test_a_stopped_actor_goes_on_where_it_was(faulty: FleetProcess, story: str) -> None:
    with halfway(faulty) as (stream, actor):
        told = len(stream.keepalives)
        while len(stream.keepalives) < told + 3:
            stream.line()
        actor.resume()
        check_whole(stream.rest(), story)
    assert faulty.actor().pid == actor.pid


def test_an_actor_that_hangs_is_replaced(faulty: FleetProcess) -> None:
    """It hangs while it is idle, where the deadline is short; who asks then is served later."""
    faulty.wait_idle()
    actor, restarts = faulty.actor(), faulty.device().restarts
    actor.suspend()
    assert "Paris" in ask(faulty)
    assert faulty.device().restarts == restarts + 1
    assert not actor.is_running()


def test_a_killed_supervisor_takes_its_actors_along_and_comes_back(
    faulty: FleetProcess, story: str
) -> None:
    with SseStream(faulty.api, STORY) as stream:
        stream.read(10)
        below = psutil.Process(faulty.neuron.process.pid).children(recursive=True)
        assert len(below) >= 1
        with stream.reading():
            faulty.neuron.kill()
            wait_until(lambda: not any(map(alive, below)))
            faulty.neuron.start()
    check_whole(stream, story)
    assert "Paris" in ask(faulty)


def test_a_killed_fleet_actor_is_not_missed(faulty: FleetProcess, story: str) -> None:
    killed = faulty.fleet_actor()
    with SseStream(faulty.api, STORY) as stream:
        stream.read(5)
        with stream.reading():
            killed.kill()
            assert "Paris" in ask(faulty)
            wait_until(lambda: fleet_actor_answers(faulty, killed.pid))
    check_whole(stream, story)
    faulty.wait_ready()
    assert "Paris" in ask(faulty)


def fleet_actor_answers(fleet: FleetProcess, old_pid: int) -> bool:
    if not any(one.pid != old_pid for one in fleet.gateway.children("cortexd.fleet_actor")):
        return False
    try:
        return httpx.get(f"{fleet.metrics_url}/health").status_code == 200
    except httpx.TransportError:
        return False


def test_killed_http_workers_are_replaced_and_their_work_is_ended(faulty: FleetProcess) -> None:
    killed = faulty.http_workers()
    cancelled = faulty.node_cancelled()
    with halfway(faulty) as (stream, _actor):
        for worker in killed:
            worker.kill()
        with pytest.raises(httpx.TransportError):
            stream.rest()
        wait_until(lambda: faulty.node_cancelled() == cancelled + 1)
    faulty.wait_idle()
    assert "Paris" in ask(faulty)
    assert {one.pid for one in faulty.http_workers()}.isdisjoint(one.pid for one in killed)
    wait_until(lambda: faulty.metric("cortex_model_in_flight") == 0)


LONG: dict[str, Any] = {
    "model": SMOLLM2,
    "max_tokens": 400,
    "temperature": 0,
    "ignore_eos": True,
}
CHAT: dict[str, Any] = LONG | {"messages": STORY["messages"]}
TEXT: dict[str, Any] = LONG | {"prompt": "Once upon a time"}
CANONICAL: dict[str, Any] = {
    "request_id": "r",
    "model": SMOLLM2,
    "prompt": {"type": "text", "text": "Once upon a time"},
    "sampling": {"max_tokens": 400, "ignore_eos": True},
}


@pytest.mark.parametrize(
    ("server", "path", "body"),
    [
        ("gateway", "/v1/chat/completions", CHAT | {"stream": True}),
        ("gateway", "/v1/chat/completions", CHAT),
        ("gateway", "/v1/messages", CHAT | {"stream": True}),
        ("gateway", "/v1/messages", CHAT),
        ("gateway", "/v1/completions", TEXT | {"stream": True}),
        ("node", "/v1/chat/completions", CHAT | {"stream": True}),
        ("node", "/v1/completions", TEXT),
        ("node", "/generate", CANONICAL),
    ],
)
def test_a_client_that_leaves_frees_the_engine(
    faulty: FleetProcess, server: str, path: str, body: dict[str, Any]
) -> None:
    base_url = faulty.base_url if server == "gateway" else faulty.node_url
    for _ in range(TRIES):
        cancelled = faulty.node_cancelled()
        with sent(httpx.Request("POST", base_url + path, json=body)):
            wait_until(lambda: faulty.model().running)
            actor = faulty.stopped_actor()
        if actor is not None:
            break
    assert actor is not None
    try:
        wait_until(lambda: faulty.node_cancelled() == cancelled + 1)
    finally:
        actor.resume()
    faulty.wait_idle()


def test_a_gateway_that_is_told_to_stop_lets_streams_end(faulty: FleetProcess, story: str) -> None:
    with SseStream(faulty.api, STORY) as stream:
        stream.read(5)
        faulty.gateway.send(signal.SIGTERM)
        check_whole(stream.rest(), story)
    assert faulty.gateway.wait() == 0
    faulty.wait_idle()
    assert not [line for line in survivors(faulty.root) if "cortexd" in line]
    assert list((faulty.run_dir / "c").glob("*")) == []
    faulty.gateway.start()
    faulty.wait_ready()
    assert "Paris" in ask(faulty)


def test_a_node_that_is_told_to_stop_lets_streams_end(faulty: FleetProcess, story: str) -> None:
    with SseStream(faulty.api, STORY) as stream:
        stream.read(5)
        faulty.neuron.send(signal.SIGTERM)
        check_whole(stream.rest(), story)
    assert faulty.neuron.wait() == 0
    assert not [line for line in survivors(faulty.root) if "cortexd" not in line]
    assert list((faulty.run_dir / "n").glob("*")) == []
    faulty.neuron.start()
    assert "Paris" in ask(faulty)
