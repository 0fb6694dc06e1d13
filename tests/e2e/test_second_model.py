"""Gemma 3 beside SmolLM2: loaded when it is asked for, while the other goes on."""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import psutil
import pytest

from tests.fakes.fleet_process import FleetProcess
from tests.fakes.model_cache import GEMMA3, SMOLLM2, cached_model
from tests.fakes.sse_stream import SseStream
from tests.fakes.waiting import LIFE_SIGN_S, wait_until

pytestmark = pytest.mark.model

TRIES = 20
"""To stop the actor before it has a long answer whole, which takes it seconds."""


def story(tokens: int) -> dict[str, Any]:
    return {
        "model": SMOLLM2,
        "messages": [{"role": "user", "content": "Tell a story about a fox."}],
        "temperature": 0,
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }


def gemma(tokens: int, **options: Any) -> dict[str, Any]:
    return {
        "model": "gemma",
        "messages": [{"role": "user", "content": "Where is the Eiffel Tower?"}],
        "temperature": 0,
        "max_tokens": tokens,
        "ignore_eos": True,
        **options,
    }


@pytest.fixture
def cold_gemma(fleet: FleetProcess) -> Iterator[FleetProcess]:
    """The fleet with Gemma on disk and not in memory, before and after."""
    cached_model(GEMMA3)
    fleet.unload(GEMMA3)
    yield fleet
    fleet.unload(GEMMA3)


def test_it_loads_on_demand_while_the_other_goes_on(cold_gemma: FleetProcess) -> None:
    fleet = cold_gemma
    # Weights that are packed already would be there before anybody is told to wait.
    shutil.rmtree(cached_model(GEMMA3) / "packed", ignore_errors=True)
    alone = SseStream(fleet.api, story(60))
    with alone:
        alone.rest()

    beside, waiting = SseStream(fleet.api, story(300)), SseStream(fleet.api, gemma(12))
    ended = threading.Event()

    def tell() -> None:
        with beside:
            while not beside.done and not (ended.is_set() and beside.chunks > 60):
                beside.line()

    with ThreadPoolExecutor(1) as pool:
        telling = pool.submit(tell)
        wait_until(lambda: beside.chunks > 2 or telling.done())
        with waiting:
            waiting.rest()
        ended.set()
        telling.result()

    assert any("loading" in word for word in waiting.keepalives)
    assert waiting.longest_silence_s < LIFE_SIGN_S
    assert waiting.finish_reason == "length"
    assert beside.longest_silence_s < LIFE_SIGN_S
    assert beside.text.startswith(alone.text)


def test_both_are_usable_at_once(cold_gemma: FleetProcess) -> None:
    fleet = cold_gemma
    prompt = "Q: What is the capital of France?\nA:"
    asked = {"prompt": prompt, "temperature": 0, "max_tokens": 12}
    alone = {m: text(fleet.openai, m, asked) for m in (GEMMA3, SMOLLM2)}
    assert "Paris" in alone[GEMMA3]
    assert "Paris" in alone[SMOLLM2]
    with ThreadPoolExecutor(4) as pool:
        jobs = [(m, pool.submit(text, fleet.openai, m, asked)) for m in (GEMMA3, SMOLLM2) * 2]
        assert [job.result() for _, job in jobs] == [alone[m] for m, _ in jobs]


def text(client: openai.OpenAI, model: str, asked: dict[str, Any]) -> str:
    stream = client.completions.create(model=model, stream=True, **asked)
    return "".join(chunk.choices[0].text for chunk in stream if chunk.choices)


def test_the_profile_gives_a_base_model_a_template(cold_gemma: FleetProcess) -> None:
    fleet = cold_gemma
    question: list[Any] = [{"role": "user", "content": "Where is the Eiffel Tower?"}]
    answer = fleet.openai.chat.completions.create(
        model=GEMMA3, messages=question, max_tokens=8, temperature=0
    )
    assert answer.choices[0].message.content
    counted = fleet.anthropic.messages.count_tokens(model=GEMMA3, messages=question)
    assert answer.usage is not None
    assert counted.input_tokens == answer.usage.prompt_tokens


def test_a_full_queue_is_told_with_a_time_to_come_again(cold_gemma: FleetProcess) -> None:
    """Two requests run and one waits: that is all that the profile allows."""
    fleet = cold_gemma
    fleet.load(GEMMA3)
    with two_halfway(fleet) as (one, two, actor):
        with SseStream(fleet.api, gemma(4)) as three:
            three.line()
            refused = fleet.api.post("/v1/chat/completions", json=gemma(4))
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "queue_full"
            assert int(refused.headers["retry-after"]) >= 1
            told = fleet.api.post("/v1/messages", json=gemma(4))
            assert told.status_code == 429
            assert told.json()["error"]["type"] == "rate_limit_error"
            assert int(told.headers["retry-after"]) >= 1
            one.response.close()
            actor.resume()
            three.rest()
        assert three.finish_reason == "length"
        assert two.read(2).error is None
    fleet.wait_idle(GEMMA3)
    wait_until(lambda: fleet.metric("cortex_model_in_flight", model=GEMMA3) == 0)


@contextlib.contextmanager
def two_halfway(fleet: FleetProcess) -> Iterator[tuple[SseStream, SseStream, psutil.Process]]:
    """Two streams in the midst of their answers, and the actor, which is stopped until after it."""
    for _ in range(TRIES):
        with (
            SseStream(fleet.api, gemma(400)) as one,
            SseStream(fleet.api, gemma(400)) as two,
        ):
            one.read(2)
            two.read(2)
            actor = fleet.stopped_actor(GEMMA3, running=2)
            if actor is None:
                continue
            try:
                yield one, two, actor
            finally:
                actor.resume()
            return
    raise AssertionError("no answers took long enough to be stopped")
