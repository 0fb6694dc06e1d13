"""What real clients sent is taken with its headers and the query it came with."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from falcon import testing
from falcon.asgi import App
from prometheus_client import CollectorRegistry

from cortex_core.dialects.openai_responses import OpenAIResponses
from cortexd.drain import Drain
from cortexd.gateway import Gateway
from cortexd.metrics import GatewayMetrics
from cortexd.resources.generation import GenerationResource
from cortexd.resources.responses import ResponsesResource
from cortexd.responses.database import StoredResponse
from tests.fakes.fake_fleet import MODEL, FakeFleet, FakeNodes
from tests.fakes.scripts import TEXT, answer_events
from tests.unit.cortex_core.dialects.fixture_files import DIALECTS, fixture, names


class NoStore:
    """Keeps no responses."""

    async def items(self, _ids: tuple[str, ...]) -> dict[str, Any]:
        return {}

    async def put(self, _row: StoredResponse) -> None:
        return


def route(dialect: str, gateway: Gateway) -> Any:
    if dialect == "openai_responses":
        store: Any = NoStore()
        return ResponsesResource(OpenAIResponses(), gateway, store, lambda: 0.0)
    return GenerationResource(DIALECTS[dialect], gateway, lambda: 0.0)


@pytest.fixture
def fleet() -> Iterator[FakeFleet]:
    made = FakeFleet("one")
    yield made
    made.close()


@pytest.mark.parametrize("name", names("recorded"))
def test_it_is_answered_as_it_asks(fleet: FakeFleet, name: str) -> None:
    case = fixture("recorded", name)
    path, _, query = case["target"].partition("?")
    gateway = Gateway(
        fleet=fleet,
        nodes=FakeNodes(one=lambda request: list(answer_events(request))),
        metrics=GatewayMetrics(CollectorRegistry()),
        drain=Drain(),
        clock=lambda: 0.0,
    )
    app = App()
    app.add_route(path, route(case["dialect"], gateway))
    body = json.dumps(case["body"] | {"model": MODEL})
    answer = testing.TestClient(app).simulate_post(
        path, query_string=query, headers=case["headers"], body=body
    )
    assert answer.status_code == 200
    is_stream = answer.headers["content-type"].startswith("text/event-stream")
    assert is_stream is case["body"].get("stream", False)
    assert json.dumps(TEXT[:3])[1:-1] in answer.text
