"""`POST /v1/embeddings` of the real HTTP server, over nodes that the test breaks."""

import base64
import struct
from typing import Any

import pytest

from cortex_core.canonical import TextPrompt
from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.gateway_client import Answer, GatewayClient
from tests.fakes.http_process import MODEL, HttpProcess
from tests.fakes.waiting import wait_until_async


async def ask(client: GatewayClient, **body: Any) -> Answer:
    return await client.request("POST", "/v1/embeddings", {"model": MODEL, "input": "hi"} | body)


def asked(neurons: list[FakeNeuron]) -> int:
    return sum(len(neuron.embedded) for neuron in neurons)


async def test_vectors_come_in_both_encodings(
    client: GatewayClient, neurons: list[FakeNeuron]
) -> None:
    answer = await ask(client, model="small", input=["a", "b"], user="me")
    assert answer.status == 200
    assert answer.headers["x-request-id"]
    body = await answer.json()
    assert [each["embedding"] for each in body["data"]] == [[0, 1], [1, 1]]
    assert body["model"] == "small"
    assert body["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    coded = await (await ask(client, input=["a", "b"], encoding_format="base64")).json()
    raw = [base64.b64decode(each["embedding"]) for each in coded["data"]]
    assert raw == [struct.pack("<2f", index, 1) for index in (0, 1)]
    (request, *_) = [one for neuron in neurons for one in neuron.embedded]
    assert request.inputs == (TextPrompt("a"), TextPrompt("b"))
    assert request.model == MODEL


async def test_a_node_that_breaks_off_is_not_noticed(
    client: GatewayClient, neurons: list[FakeNeuron]
) -> None:
    for broken in neurons:
        broken.breaks_off = True
        body = await (await ask(client)).json()
        assert body["data"][0]["embedding"] == [0, 1]
        broken.breaks_off = False
    assert asked(neurons) >= 2


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": []}, 400, "input"),
        ({"input": "hi", "encoding_format": "x"}, 400, "encoding_format"),
        ({"model": "none"}, 404, "model"),
    ],
)
async def test_bad_requests_reach_no_node(
    client: GatewayClient,
    neurons: list[FakeNeuron],
    body: dict[str, Any],
    status: int,
    param: str,
) -> None:
    answer = await ask(client, **body)
    assert answer.status == status
    assert (await answer.json())["error"]["param"] == param
    assert asked(neurons) == 0


async def test_places_are_given_back(
    client: GatewayClient, http: HttpProcess, neurons: list[FakeNeuron]
) -> None:
    for _ in range(3):
        await (await ask(client)).body()
    await wait_until_async(lambda: http.in_flight() == 0)
