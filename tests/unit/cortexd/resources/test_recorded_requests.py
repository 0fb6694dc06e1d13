"""What real clients sent is taken with its headers and the query it came with."""

import json

import pytest
from falcon import testing
from falcon.asgi import App
from prometheus_client import CollectorRegistry

from cortexd.drain import Drain
from cortexd.gateway import Gateway
from cortexd.metrics import GatewayMetrics
from cortexd.resources.generation import GenerationResource
from tests.fakes.fake_fleet import MODEL, FakeFleet, FakeNodes
from tests.fakes.scripts import TEXT, answer_events
from tests.unit.cortex_core.dialects.fixture_files import DIALECTS, fixture, names

RECORDED = {name: fixture("recorded", name) for name in names("recorded")}
# Responses have a store, and a resource of their own.
STORELESS = [name for name, case in RECORDED.items() if case["target"] != "/v1/responses"]


@pytest.mark.parametrize("name", STORELESS)
def test_it_is_answered_as_it_asks(name: str) -> None:
    case = RECORDED[name]
    path, _, query = case["target"].partition("?")
    fleet = FakeFleet("one")
    gateway = Gateway(
        fleet=fleet,
        nodes=FakeNodes(one=lambda request: list(answer_events(request))),
        metrics=GatewayMetrics(CollectorRegistry()),
        drain=Drain(),
        clock=lambda: 0.0,
    )
    app = App()
    app.add_route(path, GenerationResource(DIALECTS[case["dialect"]], gateway, lambda: 0.0))
    body = json.dumps(case["body"] | {"model": MODEL})
    answer = testing.TestClient(app).simulate_post(
        path, query_string=query, headers=case["headers"], body=body
    )
    fleet.close()
    assert answer.status_code == 200
    is_stream = answer.headers["content-type"].startswith("text/event-stream")
    assert is_stream is case["body"].get("stream", False)
    assert json.dumps(TEXT[:3])[1:-1] in answer.text
    assert "x-cortex-ignored" not in answer.headers
