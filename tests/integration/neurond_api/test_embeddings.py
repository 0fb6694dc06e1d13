"""Vectors over HTTP, from a node whose model counts instead of computing."""

import base64
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from cortex_core.canonical import Completed, Usage
from cortex_core.canonical_embedding import Embedded, EmbedEvent
from tests.fakes.neuron_process import CONTEXT, MODEL, NeuronProcess, add_model, neuron_process
from tests.fakes.raw_requests import sent
from tests.fakes.waiting import wait_until

EVENTS: msgspec.json.Decoder[EmbedEvent] = msgspec.json.Decoder(EmbedEvent)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NeuronProcess]:
    root: Path = tmp_path_factory.mktemp("node")
    add_model(root / "state", "vectors")
    with neuron_process(root) as started:
        started.load("pypi:vectors")
        started.load()
        yield started


def ask(node: NeuronProcess, **body: Any) -> httpx.Response:
    return node.client.post("/v1/embeddings", json={"model": "pypi:vectors"} | body)


def test_the_nodes_own_route_streams_a_vector_for_each_input(node: NeuronProcess) -> None:
    inputs = [{"type": "tokens", "token_ids": [7, 8]}, {"type": "text", "text": "ab"}]
    body = {"request_id": "r", "model": "pypi:vectors", "inputs": inputs}
    answer = node.client.post("/embed", json=body)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    events = EVENTS.decode_lines(answer.content)
    vectors = {event.index: event.vector for event in events if isinstance(event, Embedded)}
    assert vectors[0] == struct.pack("<2f", 7, 2)
    assert vectors.keys() == {0, 1}
    assert isinstance(events[-1], Completed)
    assert events[-1].usage == Usage(2 + struct.unpack("<2f", vectors[1])[1], 0)


def test_openais_route_answers_in_both_encodings(node: NeuronProcess) -> None:
    floats = ask(node, input=[[5], [6, 7]]).json()
    texts = ask(node, input=[[5], [6, 7]], encoding_format="base64").json()
    assert [each["embedding"] for each in floats["data"]] == [[5, 1], [6, 2]]
    decoded = [struct.unpack("<2f", base64.b64decode(e["embedding"])) for e in texts["data"]]
    assert decoded == [(5, 1), (6, 2)]
    assert floats["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert floats["model"] == "pypi:vectors"


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"input": ""}, 400, "invalid_request", "input[0]"),
        ({"input": [[1], [2] * (CONTEXT + 1)]}, 400, "context_length_exceeded", "input[1]"),
        ({"input": [[2] * CONTEXT] * 200}, 400, "invalid_request", "input"),
        ({"input": "a", "dimensions": 3}, 400, "invalid_request", "dimensions"),
        ({"input": [99_999_999]}, 400, "invalid_request", "input[0]"),
        ({"input": "a", "model": MODEL}, 400, "invalid_request", "model"),
        ({"input": "a", "model": "pypi:none"}, 404, "model_not_found", "model"),
    ],
    ids=["empty", "long", "too much", "dimensions", "token", "no vectors", "unknown"],
)
def test_errors_have_openais_form_and_name_the_field(
    node: NeuronProcess, body: dict[str, Any], status: int, code: str, param: str
) -> None:
    answer = ask(node, **body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)


def test_a_client_that_leaves_frees_its_place(node: NeuronProcess) -> None:
    def running() -> int:
        models = {model["id"]: model for model in node.client.get("/models").json()["models"]}
        return int(models["pypi:vectors"].get("running", 0))

    body = {"model": "pypi:vectors", "input": [[1]] * 2048}
    with sent(httpx.Request("POST", f"{node.base_url}/v1/embeddings", json=body)):
        pass
    wait_until(lambda: running() == 0)
    assert ask(node, input="a").status_code == 200


def test_models_say_what_they_can_do(node: NeuronProcess) -> None:
    models = {model["id"]: model for model in node.client.get("/models").json()["models"]}
    assert "embeddings" in models["pypi:vectors"]["capabilities"]
    assert models["pypi:vectors"]["embedding"] == {"dimensions": 2, "max_input_tokens": CONTEXT}
    assert "embeddings" not in models[MODEL]["capabilities"]
