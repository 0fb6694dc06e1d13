"""What a client hears, and what is held, while its response is being kept."""

import asyncio
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
from cortexd.resources import responses
from cortexd.resources.responses import ResponsesResource
from cortexd.responses.database import StoredResponse
from tests.fakes.fake_fleet import FakeFleet, FakeNodes
from tests.fakes.scripts import TEXT, answer_events

PATH = "/v1/responses"
WAIT_S = 5.0


class SlowStore:
    """Writes only once the client has heard something meanwhile."""

    def __init__(self, fleet: FakeFleet) -> None:
        self._fleet = fleet
        self._heard = asyncio.Event()
        self._writing = False
        self.num_heard = 0
        self.in_flight: int | None = None
        self.kept: list[StoredResponse] = []

    def clock(self) -> float:
        """The resource's: asked for each event on its way to the client."""
        if self._writing:
            self.num_heard += 1
            self._heard.set()
        return 0.0

    async def items(self, _ids: tuple[str, ...]) -> dict[str, Any]:
        return {}

    async def put(self, row: StoredResponse) -> None:
        self.in_flight = self._fleet.in_flight()
        self._writing = True
        await asyncio.wait_for(self._heard.wait(), WAIT_S)
        self._writing = False
        self.kept.append(row)


@pytest.fixture
def fleet() -> Iterator[FakeFleet]:
    made = FakeFleet("one")
    yield made
    made.close()


def test_a_client_hears_something_and_holds_no_replica_while_its_response_is_kept(
    fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "PING_S", 0.01)
    store: Any = SlowStore(fleet)
    gateway = Gateway(
        fleet=fleet,
        nodes=FakeNodes(one=answer_events),
        metrics=GatewayMetrics(CollectorRegistry()),
        drain=Drain(),
        clock=lambda: 0.0,
    )
    app = App()
    resource = ResponsesResource(OpenAIResponses(), gateway, store, store.clock)
    app.add_route(PATH, resource)
    body = {"model": "m", "input": "hi", "stream": True}
    answer = testing.TestClient(app).simulate_post(PATH, json=body)
    assert answer.status_code == 200
    assert store.num_heard == 1
    assert store.in_flight == 0
    (row,) = store.kept
    assert TEXT in row.response.decode()
    events = answer.text.strip().split("\n\n")
    assert events[-2].startswith(": ping")
    assert "response.completed" in events[-1]
