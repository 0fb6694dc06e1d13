"""What every answer of the node's own dialects tells: its request's id, and what was left out."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from cortex_core.canonical import (
    Completed,
    Event,
    Finished,
    GenerateRequest,
    Started,
    TextDelta,
    Usage,
)
from cortex_core.errors import ModelNotFound
from cortex_core.logs import LineFormatter
from neurond.api import create_app
from neurond.config import NeuronConfig

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
INPUT = {"model": "m", "input": "hi"}


async def ask(node: object, path: str, body: dict[str, Any]) -> httpx.Response:
    app = create_app(node, CollectorRegistry())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
        return await client.post(path, json=body)


def scope_of(path: str, body: bytes) -> dict[str, Any]:
    headers = [(b"content-length", str(len(body)).encode())]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
    }


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the node logged."""
    ours = [record for record in caplog.records if record.name.startswith("neurond")]
    return [LineFormatter().format(record) for record in ours]


def failing(error: Exception) -> object:
    def addressed(_request: object) -> object:
        raise error

    return SimpleNamespace(config=NeuronConfig(), addressed=addressed)


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", BODY), ("/v1/embeddings", INPUT)]
)
@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError(), 500), (ModelNotFound("cannot find it"), 404)]
)
async def test_the_log_has_an_error_under_the_id_that_the_client_got(
    path: str,
    body: dict[str, Any],
    error: Exception,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    answer = await ask(failing(error), path, body)
    assert answer.status_code == status
    request_id = answer.headers["x-request-id"]
    assert answer.json()["error"]["request_id"] == request_id
    (line,) = lines_of(caplog)
    assert f"request_id={request_id}" in line


@pytest.mark.parametrize("path", ["/generate", "/embed"])
async def test_the_log_has_what_a_gateway_is_refused_under_its_id(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    prompt = {"type": "text", "text": "hi"}
    body = {"request_id": "theirs", "model": "m", "prompt": prompt, "inputs": [prompt]}
    answer = await ask(failing(ModelNotFound("cannot find it")), path, body)
    assert answer.status_code == 404
    (line,) = lines_of(caplog)
    assert "info " in line
    assert "request_id=theirs" in line
    assert "cannot find it" in line


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_left_out_of_a_request_is_named(stream: bool) -> None:
    async def events(request: GenerateRequest) -> AsyncGenerator[Event, None]:
        yield Started(request.request_id, request.model, 1)
        yield TextDelta(0, "a")
        yield Finished(0, "stop")
        yield Completed(Usage(1, 1))

    async def start(request: GenerateRequest) -> AsyncGenerator[Event, None]:
        return events(request)

    def addressed(request: GenerateRequest) -> GenerateRequest:
        return request

    generation = SimpleNamespace(start=start)
    node = SimpleNamespace(config=NeuronConfig(), addressed=addressed, generation=generation)
    body = BODY | {"stream": stream, "tools": [{"type": "web_search"}]}
    answer = await ask(node, "/v1/chat/completions", body)
    assert answer.status_code == 200
    assert answer.headers["x-cortex-ignored"] == "tools[0]"
    plain = await ask(node, "/v1/chat/completions", BODY)
    assert "x-cortex-ignored" not in plain.headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/generate", "/embed"])
async def test_a_client_that_leaves_before_the_first_bytes_cancels_its_request(path: str) -> None:
    started: list[AsyncGenerator[object, None]] = []
    closed, gone = asyncio.Event(), asyncio.Event()

    async def events() -> AsyncGenerator[object, None]:
        try:
            yield None
            yield None
        finally:
            closed.set()

    async def start(_request: object) -> AsyncGenerator[object, None]:
        started.append(events())
        await anext(started[0])
        return started[0]

    async def receive() -> dict[str, Any]:
        if bodies:
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(_message: object) -> None:
        gone.set()
        for _ in range(10):
            await asyncio.sleep(0)

    starts = SimpleNamespace(start=start, start_batches=start)
    node = SimpleNamespace(
        config=NeuronConfig(),
        addressed=lambda request: request,
        generation=starts,
        embedding=starts,
    )
    prompt = {"type": "text", "text": "a"}
    own = {"request_id": "r", "prompt": prompt, "inputs": [prompt]}
    bodies = [json.dumps(BODY | own | {"stream": True}).encode()]
    app = create_app(node, CollectorRegistry())
    await app(scope_of(path, bodies[0]), receive, send)
    assert closed.is_set()
