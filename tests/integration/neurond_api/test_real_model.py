"""The real model behind the real daemon: text, continuation, counting, leaving."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import jsonschema
import pytest

from cortex_core.canonical import (
    Completed,
    Finished,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from tests.fakes.model_cache import SMOLLM2, cache_dir, real_model
from tests.fakes.waiting import wait_until
from tests.fakes.wire import events_of

pytestmark = pytest.mark.model

USER = {"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]}
PROMPT = {"type": "chat", "messages": [USER]}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, unused_port: int) -> Iterator[httpx.Client]:
    real_model(SMOLLM2)
    root: Path = tmp_path_factory.mktemp("real")
    config = root / "neuron.toml"
    config.write_text(
        f'listen = "127.0.0.1"\nport = {unused_port}\ndevices = ["cpu"]\n'
        f'state_dir = "{cache_dir()}"\nruntime_dir = "{root / "run"}"\n'
        f'[[default_models]]\nmodel_id = "{SMOLLM2}"\n'
        f'[[models]]\nid = "{SMOLLM2}"\ncontext_tokens = 512\n'
    )
    argv = [sys.executable, "-m", "neurond.cli", "serve", "--config", str(config)]
    process = subprocess.Popen(argv, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{unused_port}", timeout=120) as connected:

            def done() -> bool:
                assert process.poll() is None
                try:
                    health = connected.get("/health").json()
                except httpx.TransportError:
                    return False
                return bool(health["activation"]["state"] == "done")

            wait_until(done, timeout_s=120)
            yield connected
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert list((root / "run").iterdir()) == []
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def generate(client: httpx.Client, **changes: object) -> list[object]:
    sampling = {"temperature": 0, "max_tokens": 12}
    body = {"request_id": "r", "model": SMOLLM2, "prompt": PROMPT, "sampling": sampling} | changes
    answer = client.post("/generate", json=body)
    assert answer.status_code == 200, answer.text
    return list(events_of(answer.content))


def deltas_of(events: list[object]) -> list[TextDelta | Finished]:
    return [event for event in events if isinstance(event, TextDelta | Finished)]


def test_it_knows_the_capital_of_france(client: httpx.Client) -> None:
    events = generate(client)
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert text == "The capital of France is Paris."
    assert isinstance(events[-1], Completed)
    finished = events[-2]
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.token_ids) == ("stop", (2,))


def test_counting_agrees_with_what_a_request_reports(client: httpx.Client) -> None:
    started = generate(client)[0]
    assert isinstance(started, Started)
    counted = client.post(f"/models/{SMOLLM2}/count_tokens", json={"prompt": PROMPT}).json()
    assert counted == {"prompt_tokens": started.prompt_tokens}


def test_a_stream_cut_in_the_middle_goes_on_with_the_same_text(client: httpx.Client) -> None:
    uncut = generate(client, want_prompt_token_ids=True)
    started = uncut[0]
    assert isinstance(started, Started)
    assert started.prompt_token_ids is not None
    deltas = deltas_of(uncut)
    seen = deltas[:4]
    going_on = {
        "prompt_token_ids": started.prompt_token_ids,
        "output_token_ids": [id_ for event in seen for id_ in event.token_ids],
        "next_seq": len(seen),
    }
    resumed = generate(client, continue_from=going_on)
    assert seen + deltas_of(resumed) == deltas
    first = resumed[0]
    assert isinstance(first, Started)
    assert first.weights_id == started.weights_id


def test_a_client_that_leaves_stops_the_engine(client: httpx.Client) -> None:
    body = {
        "request_id": "r",
        "model": SMOLLM2,
        "prompt": PROMPT,
        "sampling": {"max_tokens": 400, "ignore_eos": True},
        "n": 16,
    }

    def in_flight() -> int:
        models = {model["id"]: model for model in client.get("/models").json()["models"]}
        return models[SMOLLM2].get("running", 0) + models[SMOLLM2].get("waiting", 0)

    def cancelled() -> float:
        name = f'neuron_requests_total{{model="{SMOLLM2}",outcome="cancelled"}}'
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    before = cancelled()
    with (
        httpx.Client(base_url=client.base_url, timeout=60) as leaving,
        leaving.stream("POST", "/generate", json=body) as stream,
    ):
        next(stream.iter_lines())
    wait_until(lambda: cancelled() == before + 1)
    wait_until(lambda: in_flight() == 0)


WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "unit", "days"],
    "additionalProperties": False,
}
SAY = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "say", "parameters": SAY}},
]


def chat(client: httpx.Client, **changes: object) -> httpx.Response:
    body = {
        "model": SMOLLM2,
        "messages": [{"role": "user", "content": "How is the weather in Paris?"}],
        "tools": TOOLS,
        "temperature": 0,
        "max_tokens": 120,
    }
    return client.post("/v1/chat/completions", json=body | changes)


def test_a_call_that_is_asked_for_by_name_keeps_to_its_schema(client: httpx.Client) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    answer = chat(client, tool_choice=choice)
    assert answer.status_code == 200, answer.text
    told = answer.json()["choices"][0]
    assert told["finish_reason"] == "tool_calls"
    (call,) = told["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    jsonschema.validate(json.loads(call["function"]["arguments"]), WEATHER)
    assert not told["message"]["content"]


def test_a_required_call_comes_alone_where_calls_are_not_to_be_parallel(
    client: httpx.Client,
) -> None:
    answer = chat(client, tool_choice="required", parallel_tool_calls=False)
    assert answer.status_code == 200, answer.text
    told = answer.json()["choices"][0]
    assert told["finish_reason"] in ("tool_calls", "length")
    if told["finish_reason"] == "tool_calls":
        assert len(told["message"]["tool_calls"]) == 1


def test_a_call_that_is_continued_elsewhere_is_the_same(client: httpx.Client) -> None:
    prompt = PROMPT | {
        "tools": [{"name": "get_weather", "parameters": WEATHER}],
        "tool_choice": {"mode": "named", "name": "get_weather"},
    }
    asked = {"prompt": prompt, "sampling": {"temperature": 0, "max_tokens": 120}}
    whole = generate(client, want_prompt_token_ids=True, **asked)
    started = next(event for event in whole if isinstance(event, Started))
    deltas = [event for event in whole if hasattr(event, "seq")]
    (call,) = (n for n, event in enumerate(deltas) if isinstance(event, ToolCallStarted))
    assert isinstance(deltas[call + 1], ToolCallDelta)
    for place in (5, call + 1, len(deltas) - 1):
        seen = deltas[:place]
        going_on = {
            "prompt_token_ids": started.prompt_token_ids,
            "output_token_ids": [id_ for event in seen for id_ in event.token_ids],
            "next_seq": place,
        }
        rest = generate(client, continue_from=going_on, **asked)
        assert [event for event in rest if hasattr(event, "seq")] == deltas[place:]


def test_tools_that_no_answer_can_keep_to_are_refused_by_name(client: httpx.Client) -> None:
    parameters = {"type": "object", "properties": {"x": {"enum": []}}, "required": ["x"]}
    function = {"name": "f", "parameters": parameters, "strict": True}
    tools = [{"type": "function", "function": function}]
    answer = chat(client, tools=tools, tool_choice="required")
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == "tools"
    assert "the tool f's parameters" in answer.json()["error"]["message"]
