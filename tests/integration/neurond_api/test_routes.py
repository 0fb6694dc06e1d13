"""The node's own routes, over HTTP, on a real daemon."""

import pytest

from cortex_core import __version__
from cortex_core.neuron_api import Discovery, Health, ModelsResponse, RestartResponse
from tests.fakes.neuron_process import MODEL, NeuronProcess
from tests.fakes.waiting import wait_until
from tests.fakes.wire import decoded


def test_discovery_names_host_devices_and_the_attention_backend(node: NeuronProcess) -> None:
    found = decoded(node.client.get("/discovery"), Discovery)
    assert found.version == __version__
    assert [device.id for device in found.devices] == ["cpu"]
    assert found.devices[0].attention_backend == "counting"
    assert found.harnesses == ["torch"]


def test_health_is_measured_and_versioned(node: NeuronProcess) -> None:
    health = decoded(node.client.get("/health"), Health)
    assert not health.draining
    assert health.devices[0].vram_free_mb > 0
    assert health.devices[0].state == "ready"
    assert health.activation.state in {"idle", "done"}


def test_models_lists_what_is_on_disk_and_what_is_loaded(node: NeuronProcess) -> None:
    models = {m.id: m for m in decoded(node.client.get("/models"), ModelsResponse).models}
    assert models[MODEL].status == "ready"
    assert models[MODEL].weights_id == "counting"
    assert models["pypi:never-loaded"].status == "unloaded"


def test_version_tells_the_protocol(node: NeuronProcess) -> None:
    assert node.client.get("/version").json() == {"version": __version__, "protocol": 1}


def test_endpoint_is_where_the_caller_found_us(node: NeuronProcess) -> None:
    for written in ("pypi:counting", "pypi%3Acounting", "counting"):
        answer = node.client.get(f"/models/{written}/endpoint")
        assert answer.json() == {"url": f"{node.base_url}/v1"}


def test_counting_works_without_loading(node: NeuronProcess) -> None:
    body = {"prompt": {"type": "text", "text": "qrst"}}
    for model in (MODEL, "pypi:never-loaded", "never-loaded"):
        answer = node.client.post(f"/models/{model}/count_tokens", json=body)
        assert answer.json() == {"prompt_tokens": 4}
    models = {m["id"]: m for m in node.client.get("/models").json()["models"]}
    assert models["pypi:never-loaded"]["status"] == "unloaded"


def test_counting_takes_the_template_that_a_load_would_bring(node: NeuronProcess) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "qrst"}]}
    body = {"prompt": {"type": "chat", "messages": [message]}}
    path = "/models/bare-too/count_tokens"
    assert node.client.post(path, json=body).status_code == 400
    template = "zz{{ messages[0].content }}"
    answer = node.client.post(path, json=body | {"chat_template": template})
    assert answer.json() == {"prompt_tokens": 6}
    invalid = node.client.post(path, json=body | {"chat_template": "{% if"})
    assert invalid.status_code == 400
    assert "template" in invalid.json()["error"]["message"]


def test_a_slash_in_a_model_id_is_percent_encoded(node: NeuronProcess) -> None:
    answer = node.client.post(
        "/models/hf%3Aorg%2Fname/count_tokens", json={"prompt": {"type": "text", "text": "x"}}
    )
    assert answer.status_code == 404
    assert "'hf:org/name'" in answer.json()["error"]["message"]


def test_a_device_that_is_idle_is_restarted(node: NeuronProcess) -> None:
    stale = node.client.post("/devices/cpu/restart", json={"state_version": 0})
    assert (stale.status_code, stale.json()["error"]["code"]) == (409, "conflict")
    unknown = node.client.post("/devices/cuda-9/restart", json={})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "invalid_request")

    answer = decoded(node.client.post("/devices/cpu/restart", json={}), RestartResponse)

    assert answer.device == "cpu"
    health = decoded(node.client.get("/health"), Health)
    assert (health.devices[0].state, health.devices[0].restarts) == ("ready", 1)
    wait_until(lambda: node.client.get("/v1/models").json()["data"])


def test_metrics_have_buckets_and_gauges(node: NeuronProcess) -> None:
    node.client.post("/v1/completions", json={"model": MODEL, "prompt": "q", "max_tokens": 3})
    text = node.client.get("/metrics").text
    assert f'neuron_time_to_first_token_seconds_bucket{{le="0.01",model="{MODEL}"}}' in text
    assert f'neuron_inter_token_latency_seconds_count{{model="{MODEL}"}}' in text
    assert f'neuron_requests_total{{model="{MODEL}",outcome="completed"}}' in text
    assert 'neuron_device_vram_free_mb{device="cpu"}' in text
    assert f'neuron_requests_running{{model="{MODEL}"}} 0.0' in text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/models/pypi:counting/nowhere", 404, "not_found"),
        ("DELETE", "/models", 405, "method_not_allowed"),
        ("GET", "/generate", 405, "method_not_allowed"),
        ("GET", "/models/pypi:nothing/endpoint", 404, "model_not_found"),
    ],
)
def test_wrong_routes_answer_in_the_error_form(
    node: NeuronProcess, method: str, path: str, status: int, code: str
) -> None:
    answer = node.client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nowhere", 404, "not_found"),
        ("GET", "/v1/completions", 405, "method_not_allowed"),
    ],
)
def test_wrong_routes_of_the_openai_dialect_answer_in_its_form(
    node: NeuronProcess, method: str, path: str, status: int, code: str
) -> None:
    answer = node.client.request(method, path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["code"], error["type"] != "") == (code, True)
    assert answer.headers["x-request-id"]


def test_loading_what_is_loaded_is_a_success(node: NeuronProcess) -> None:
    answer = node.client.post("/models/load", json={"model_id": "counting"})
    assert answer.status_code == 200
    assert answer.json()["already_loaded"] is True
    assert answer.json()["model"]["id"] == MODEL


def test_a_template_in_the_load_makes_a_base_model_one_to_chat_with(node: NeuronProcess) -> None:
    chat = {"model": "bare", "messages": [{"role": "user", "content": "q"}], "max_tokens": 2}
    node.load("bare")
    refused = node.client.post("/v1/chat/completions", json=chat)
    assert refused.status_code == 400
    assert "chat_template" in refused.json()["error"]["message"]
    template = "{{ messages[-1].content }}"
    answer = node.client.post(
        "/models/load", json={"model_id": "bare", "profile": {"chat_template": template}}
    )
    assert "chat" in answer.json()["model"]["capabilities"]
    assert node.client.post("/v1/chat/completions", json=chat).status_code == 200
    assert node.client.post("/models/unload", json={"model_id": "bare"}).status_code == 200


def test_an_unload_frees_the_model(node: NeuronProcess) -> None:
    node.load("never-loaded")
    answer = node.client.post("/models/unload", json={"model_id": "never-loaded"})
    assert answer.json()["model_id"] == "pypi:never-loaded"
    refused = node.client.post("/models/unload", json={"model_id": "never-loaded"})
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "model_not_loaded"


def test_a_decision_on_a_stale_state_is_a_conflict(node: NeuronProcess) -> None:
    answer = node.client.post("/models/load", json={"model_id": "never-loaded", "state_version": 1})
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "conflict"


def test_nothing_is_in_flight_after_all_this(node: NeuronProcess) -> None:
    def idle() -> bool:
        models = node.client.get("/models").json()["models"]
        return all(m.get("running", 0) + m.get("waiting", 0) == 0 for m in models)

    wait_until(idle)
    assert idle()
