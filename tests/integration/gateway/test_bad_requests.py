"""Whatever a client gets wrong is told in its own dialect, and disturbs nobody else."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cortex_core.canonical import Event, Failed, GenerateRequest
from cortex_core.errors import OutOfMemory
from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.gateway_client import Answer, GatewayClient
from tests.fakes.http_process import HttpProcess

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages?beta=true"
GOOD: dict[str, Any] = {
    "model": "small",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "hi"}],
}


async def openai_error(answer: Answer) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error = (await answer.json())["error"]
    assert set(error) == {"message", "type", "param", "code", "request_id"}
    return dict(error)


async def anthropic_error(answer: Answer) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/json"
    body = await answer.json()
    assert body["type"] == "error"
    assert body["request_id"] == answer.headers["request-id"]
    return dict(body["error"])


BAD_BODIES = [
    (b"{", "cannot read request"),
    (b"[]", "object"),
    (b'{"model": 3, "messages": []}', "model"),
    (json.dumps(GOOD | {"max_tokens": "many"}).encode(), "max_tokens"),
    (json.dumps(GOOD | {"temperature": -1}).encode(), "temperature"),
    (b"\xff\xfe", ""),
    (b"", ""),
]


@pytest.mark.parametrize(("body", "word"), BAD_BODIES, ids=range(len(BAD_BODIES)))
async def test_bad_body_is_a_400_that_names_the_field(
    client: GatewayClient, body: bytes, word: str
) -> None:
    answer = await client.request("POST", CHAT, body)
    assert answer.status == 400
    error = await openai_error(answer)
    assert word in f"{error['param']} {error['message']}"
    assert error["type"] == "invalid_request_error"
    answer = await client.request("POST", MESSAGES, body)
    assert answer.status == 400
    error = await anthropic_error(answer)
    assert error["type"] == "invalid_request_error"
    assert word in error["message"]


DEEP = b'{"a":[' * 100_000


@pytest.mark.parametrize("field", [b"messages", b"prompt", b"input", b"tools", b"unheard_of"])
@pytest.mark.parametrize(
    "path",
    [
        CHAT,
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
    ],
)
async def test_deep_nesting_is_a_400(client: GatewayClient, path: str, field: bytes) -> None:
    body = b'{"model": "small", "max_tokens": 9, "%s": ' % field + DEEP
    answer = await client.request("POST", path, body)
    assert answer.status == 400
    told = openai_error if "messages" not in path else anthropic_error
    assert (await told(answer))["message"].startswith("cannot read request: ")


async def test_unknown_model_is_a_404_that_names_what_is_near(client: GatewayClient) -> None:
    answer = await client.request("POST", CHAT, GOOD | {"model": "smaal"})
    assert answer.status == 404
    error = await openai_error(answer)
    assert error["code"] == "model_not_found"
    assert "small" in error["message"]
    answer = await client.request("POST", MESSAGES, GOOD | {"model": "smaal"})
    assert answer.status == 404
    assert (await anthropic_error(answer))["type"] == "not_found_error"


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/v1/messages", "leave it out of the base URL"),
        ("/messages", "lacks /v1"),
        ("/v1/messages/batches", "no such route"),
    ],
)
async def test_wrong_path_of_an_anthropic_client(
    client: GatewayClient, path: str, hint: str
) -> None:
    answer = await client.request("POST", path, GOOD)
    assert answer.status == 404
    error = await anthropic_error(answer)
    assert error["type"] == "not_found_error"
    assert hint in error["message"]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/chat/completions", "lacks /v1"),
        ("/v1/v1/chat/completions", "twice"),
        ("/v1/audio/speech", "no such route"),
    ],
)
async def test_wrong_path_of_an_openai_client(client: GatewayClient, path: str, hint: str) -> None:
    answer = await client.request("POST", path, GOOD)
    assert answer.status == 404
    assert hint in (await openai_error(answer))["message"]


@pytest.mark.parametrize("header", ["anthropic-version", "x-api-key"])
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/complete", 404),
        ("GET", "/v1/organizations", 404),
        ("DELETE", "/health", 405),
        ("POST", "/v1/models", 405),
    ],
)
async def test_an_anthropic_client_is_told_in_its_own_form(
    client: GatewayClient, header: str, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path, headers={header: "x"})
    assert answer.status == status
    assert "type" in await anthropic_error(answer)
    answer = await client.request(method, path)
    assert (await openai_error(answer))["code"] in ("not_found", "method_not_allowed")


async def test_what_only_openai_has_tells_in_openais_form(client: GatewayClient) -> None:
    answer = await client.request("GET", CHAT, headers={"x-api-key": "x"})
    assert (await openai_error(answer))["code"] == "method_not_allowed"


async def test_wrong_method(client: GatewayClient) -> None:
    answer = await client.request("GET", CHAT)
    assert answer.status == 405
    assert "POST" in answer.headers["allow"]
    assert (await openai_error(answer))["code"] == "method_not_allowed"
    answer = await client.request("DELETE", MESSAGES)
    assert answer.status == 405
    assert (await anthropic_error(answer))["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_body_over_the_limit_is_a_413(client: GatewayClient, path: str) -> None:
    answer = await client.request("POST", path, b" " * (33 * 1024 * 1024))
    assert answer.status == 413
    error = await (openai_error if path == CHAT else anthropic_error)(answer)
    assert "33554432" in error["message"]


async def test_body_under_the_limit_is_read(client: GatewayClient) -> None:
    big = GOOD | {"metadata": {"padding": "x" * (20 * 1024 * 1024)}}
    answer = await client.request("POST", CHAT, big)
    assert answer.status == 200
    await answer.body()


async def test_nodes_error_keeps_its_status_and_retry_advice(
    client: GatewayClient, neurons: list[FakeNeuron]
) -> None:
    async def refuse(_request: GenerateRequest) -> AsyncIterator[Event]:
        yield Failed(OutOfMemory("cannot run: 3 GiB are missing", retry_after_s=7).info())

    for neuron in neurons:
        neuron.script = refuse
    answer = await client.chat(stream=False)
    assert answer.status == 503
    assert answer.headers["retry-after"] == "7"
    assert (await openai_error(answer))["code"] == "out_of_memory"
    answer = await client.messages(stream=False)
    assert answer.status == 529
    assert (await anthropic_error(answer))["type"] == "overloaded_error"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/", "/health"])
async def test_knocking(client: GatewayClient, method: str, path: str) -> None:
    answer = await client.request(method, path)
    assert answer.status == 200


async def test_models_in_either_shape(client: GatewayClient) -> None:
    answer = await client.get("/v1/models")
    assert answer.headers["x-request-id"]
    openai = await answer.json()
    assert openai["object"] == "list"
    by_id = {entry["id"]: entry for entry in openai["data"]}
    assert set(by_id) == {"fake:cold", "fake:m", "small"}
    assert by_id["fake:m"]["loaded"]
    assert by_id["fake:m"]["feasible_on"] == ["node0", "node1"]
    location = {"node": "node0", "status": "ready", "vram_estimate_mb": 100}
    assert location in by_id["fake:m"]["locations"]
    assert not by_id["fake:cold"]["loaded"]
    assert by_id["small"]["alias_of"] == "fake:m"
    version = {"anthropic-version": "2023-06-01"}
    answer = await client.request("GET", "/v1/models?limit=2", headers=version)
    anthropic = await answer.json()
    assert [entry["type"] for entry in anthropic["data"]] == ["model", "model"]
    assert anthropic["has_more"]
    assert answer.headers["request-id"].removeprefix("req_") == answer.headers["x-request-id"]
    discovery = await client.request("GET", "/v1/models?limit=1000", headers=version)
    shown = [e["id"] for e in (await discovery.json())["data"] if e["id"].startswith("anthropic")]
    assert shown == ["anthropic/fake:cold", "anthropic/fake:m", "anthropic/small"]
    answer = await client.request("POST", CHAT, GOOD | {"model": shown[1]})
    assert answer.status == 200
    await answer.body()
    answer = await client.request("GET", "/v1/models?limit=none", headers=version)
    assert answer.status == 400
    assert (await anthropic_error(answer))["type"] == "invalid_request_error"


async def test_one_model_by_id_and_by_alias(client: GatewayClient) -> None:
    assert (await (await client.get("/v1/models/fake:m")).json())["id"] == "fake:m"
    assert (await (await client.get("/v1/models/small")).json())["id"] == "small"
    missing = await client.get("/v1/models/hf:nobody/nothing")
    assert missing.status == 404
    assert (await openai_error(missing))["code"] == "model_not_found"


async def test_tokens_are_counted(client: GatewayClient) -> None:
    answer = await client.request("POST", "/v1/messages/count_tokens?beta=true", GOOD)
    assert await answer.json() == {"input_tokens": 7}
    answer = await client.request("POST", "/v1/messages/count_tokens", {"model": "small"})
    assert answer.status == 400
    await anthropic_error(answer)


async def test_broken_http_disturbs_nobody(http: HttpProcess, client: GatewayClient) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
    writer.write(b"NONSENSE\r\n\r\n")
    assert b" 400 " in await reader.readline()
    writer.close()
    assert (await client.chat(stream=False)).status == 200


async def test_a_websocket_is_refused(http: HttpProcess, client: GatewayClient) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
    writer.write(
        b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert b" 403 " in await reader.readline()
    writer.close()
    assert (await client.chat(stream=False)).status == 200
