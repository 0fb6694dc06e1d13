"""For whom a request is, as the node hears it from the real HTTP server."""

from typing import Any

import pytest

from tests.fakes.fake_neuron import FakeNeuron
from tests.fakes.gateway_client import GatewayClient
from tests.fakes.http_process import MODEL

MESSAGES = [{"role": "user", "content": "hi"}]
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": ["a", "b"]},
    "/v1/responses": {"input": "hi", "store": False},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 9},
    "/v1/embeddings": {"input": "hi"},
}


@pytest.mark.parametrize("path", ROUTES)
async def test_who_is_not_named_is_the_sender(
    client: GatewayClient, neurons: list[FakeNeuron], path: str
) -> None:
    async def principals(headers: dict[str, str], **fields: Any) -> set[str | None]:
        for neuron in neurons:
            neuron.generated.clear()
            neuron.embedded.clear()
        body = {"model": MODEL, **ROUTES[path], **fields}
        answer = await client.request("POST", path, body, headers)
        assert answer.status == 200, await answer.body()
        await answer.body()
        return {
            request.principal
            for neuron in neurons
            for request in (*neuron.generated, *neuron.embedded)
        }

    found = [
        await principals({}),
        await principals({"authorization": "Bearer ada"}),
        await principals({"x-api-key": "bob"}),
    ]
    assert all(str(each).startswith("client-") for (each,) in found)
    assert len({each for (each,) in found}) == 3
    assert await principals({}) == found[0]
    by_name = {"metadata": {"user_id": "me"}} if path == "/v1/messages" else {"user": "me"}
    (named,) = await principals({"authorization": "Bearer ada"}, **by_name)
    assert str(named).startswith("user-")
