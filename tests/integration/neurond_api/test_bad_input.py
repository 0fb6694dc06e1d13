"""Every kind of bad input gets a clear error, and the node goes on."""

import json
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest

from tests.fakes.neuron_process import MODEL, NeuronProcess
from tests.fakes.wire import refusal

CHAT = "/v1/chat/completions"
TEXTS = "/v1/completions"
USER = {"role": "user", "content": "q"}
DEEP = b'{"a":[' * 100_000
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


def generate(**changes: object) -> dict[str, object]:
    prompt = {"type": "text", "text": "q"}
    return {"request_id": "r", "model": MODEL, "prompt": prompt} | changes


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/generate", b"{"),
        ("/generate", b""),
        ("/generate", b"\xff\xfe"),
        ("/generate", b"[" * 100_000),
        ("/generate", b'{"x":' + DEEP),
        ("/generate", b'{"prompt":' + DEEP),
        ("/embed", b'{"inputs":' + DEEP),
        ("/models/load", b'{"profile":' + DEEP),
        ("/models/load", b"nonsense"),
        ("/models/unload", b"[]"),
        ("/models/unload", b'{"x":' + DEEP),
        (f"/models/{MODEL}/count_tokens", b'{"x":' + DEEP),
        (f"/models/{MODEL}/count_tokens", b'{"prompt": 3}'),
    ],
)
def test_a_body_that_is_no_json_or_not_the_right_one(
    node: NeuronProcess, path: str, content: bytes
) -> None:
    answer = node.client.post(path, content=content)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
    assert answer.json()["error"]["message"].startswith("cannot read request")


@pytest.mark.parametrize("path", [CHAT, TEXTS])
@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b"3", b'{"x":' + DEEP])
def test_the_openai_dialect_answers_in_its_own_form(
    node: NeuronProcess, path: str, content: bytes
) -> None:
    answer = node.client.post(path, content=content)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert set(error) == {"message", "type", "param", "code", "request_id"}


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"request_id": 3}, "request_id"),
        ({"prompt": {"type": "song"}}, "prompt.type"),
        ({"sampling": {"temperature": "hot"}}, "sampling.temperature"),
        ({"sampling": {"temperature": -1}}, "sampling.temperature"),
        ({"sampling": {"top_p": 0}}, "sampling.top_p"),
        ({"sampling": {"max_tokens": -5}}, "sampling.max_tokens"),
        ({"sampling": {"max_tokens": "many"}}, "sampling.max_tokens"),
        ({"sampling": {"seed": -1}}, "sampling.seed"),
        ({"sampling": {"seed": 2**64}}, "sampling.seed"),
        ({"priority": 2**70}, "priority"),
        ({"priority": -(2**31) - 1}, "priority"),
        ({"response_format": {"kind": "json_schema"}}, "response_format"),
        ({"response_format": {"kind": "regex", "text": "a" * 300_000}}, "response_format"),
        ({"response_format": {"kind": "yaml"}}, "response_format.kind"),
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"prompt": {"type": "tokens", "token_ids": [-1]}}, "prompt"),
        ({"prompt": {"type": "tokens", "token_ids": [1, 1_000_000]}}, "prompt"),
        ({"sampling": {"logit_bias": {"1000000": 1}}}, "logit_bias"),
        ({"sampling": {"stop_token_ids": [1_000_000]}}, "stop_token_ids"),
        ({"prompt": {"type": "text", "text": ""}}, "prompt"),
        ({"model": ""}, "model"),
    ],
)
def test_a_wrong_field_is_named(
    node: NeuronProcess, changes: dict[str, object], param: str
) -> None:
    answer = node.client.post("/generate", json=generate(**changes))
    assert refusal(answer, 400)["param"] == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": MODEL, "messages": [USER], "max_tokens": -5}, "max_tokens"),
        ({"model": MODEL, "messages": [USER], "max_tokens": "ten"}, "max_tokens"),
        ({"model": MODEL, "messages": [USER], "n": 99}, "n"),
        ({"model": MODEL, "messages": [USER], "seed": 2**64}, "seed"),
        ({"model": MODEL, "messages": [USER], "seed": -(2**63) - 1}, "seed"),
        ({"model": MODEL, "messages": 3}, "messages"),
        ({"messages": [USER]}, "model"),
    ],
)
def test_wrong_limits_are_named_in_the_clients_words(
    node: NeuronProcess, body: dict[str, object], param: str
) -> None:
    answer = node.client.post(CHAT, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_an_unknown_model_is_not_found(node: NeuronProcess) -> None:
    openai = node.client.post(CHAT, json={"model": "nothing", "messages": [USER]})
    assert openai.status_code == 404
    assert openai.json()["error"]["code"] == "model_not_found"
    canonical = node.client.post("/generate", json=generate(model="pypi:nothing"))
    assert refusal(canonical, 404)["code"] == "model_not_found"


def test_a_model_that_is_not_loaded_is_said_to_be_so(node: NeuronProcess) -> None:
    answer = node.client.post("/generate", json=generate(model="pypi:never-loaded"))
    assert refusal(answer, 409)["code"] == "model_not_loaded"


def test_an_image_for_a_text_model(node: NeuronProcess) -> None:
    content = [{"type": "text", "text": "what is it?"}, PICTURE]
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}]}
    answer = node.client.post(CHAT, json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "wrong_modality"
    assert "text only" in answer.json()["error"]["message"]


def of_65_mib() -> Iterator[bytes]:
    for _ in range(65):
        yield b" " * 1024 * 1024


@pytest.mark.parametrize("path", ["/generate", CHAT])
@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_who_sends_a_body_that_is_too_large_reads_why(
    node: NeuronProcess, path: str, connection: str
) -> None:
    where = node.base_url.removeprefix("http://")
    for content in (b"".join(of_65_mib()), of_65_mib()):
        with closing(HTTPConnection(where, timeout=60)) as client:
            client.request("POST", path, content, {"connection": connection})
            answer = client.getresponse()
            assert answer.status == 413
            assert str(64 * 1024 * 1024) in json.load(answer)["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model_id": "ftp:x"}, 400, "invalid_request"),
        ({"model_id": ":"}, 400, "invalid_request"),
        ({"model_id": "file:relative"}, 400, "invalid_request"),
        ({"model_id": "file:/does/not/exist.gguf"}, 404, "model_not_found"),
        ({"model_id": "never-loaded", "harness": "candle"}, 400, "invalid_request"),
        ({"model_id": "never-loaded", "devices": ["cuda-7"]}, 400, "invalid_request"),
        ({"model_id": "never-loaded", "profile": {"dtype": "int3"}}, 400, "invalid_request"),
        ({"model_id": "never-loaded", "profile": {"max_sequences": 2**70}}, 400, "invalid_request"),
        ({"model_id": "never-loaded", "profile": {"max_sequences": -1}}, 400, "invalid_request"),
        ({"model_id": "never-loaded", "profile": {"context_tokens": 0}}, 400, "invalid_request"),
        ({"model_id": "never-loaded", "profile": {"kv_cache_mb": -7}}, 400, "invalid_request"),
        (
            {"model_id": "never-loaded", "profile": {"chat_template": "{% if %}"}},
            400,
            "invalid_request",
        ),
        (
            {"model_id": "never-loaded", "profile": {"kv_cache_mb": 100_000_000}},
            503,
            "out_of_memory",
        ),
    ],
)
def test_a_load_that_cannot_be(
    node: NeuronProcess, body: dict[str, object], status: int, code: str
) -> None:
    answer = node.client.post("/models/load", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_the_node_still_serves_after_all_of_it(node: NeuronProcess) -> None:
    answer = node.client.post(TEXTS, json={"model": MODEL, "prompt": "0", "max_tokens": 3})
    assert answer.json()["choices"][0]["text"] == "123"
