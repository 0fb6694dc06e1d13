"""What a client hears, and what is held, while its response is being kept."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from falcon import testing
from falcon.asgi import App
from prometheus_client import CollectorRegistry

from cortex_core.canonical import Event, Failed, GenerateRequest
from cortex_core.dialects.openai_responses import OpenAIResponses
from cortex_core.errors import ContextLengthExceeded, CortexError, QueueFull
from cortexd.drain import Drain
from cortexd.gateway import Gateway
from cortexd.metrics import GatewayMetrics
from cortexd.resources import responses
from cortexd.resources.errors import install_error_handlers
from cortexd.resources.responses import ResponsesResource
from cortexd.responses.database import StoredResponse
from tests.fakes.fake_fleet import FakeFleet, FakeNodes, Says
from tests.fakes.scripts import TEXT, answer_events
from tests.fakes.waiting import WAIT_S

PATH = "/v1/responses"


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


def asked(
    fleet: FakeFleet,
    store: Any,
    says: Says,
    *,
    stream: bool = True,
    headers: dict[str, str] | None = None,
) -> testing.Result:
    """Ask for a response, which the only node answers so."""
    gateway = Gateway(
        fleet=fleet,
        nodes=FakeNodes(one=says),
        metrics=GatewayMetrics(CollectorRegistry()),
        drain=Drain(),
        clock=lambda: 0.0,
    )
    app: App[Any, Any] = App()
    app.add_route(PATH, ResponsesResource(OpenAIResponses(), gateway, store, store.clock))
    install_error_handlers(app)
    body = {"model": "m", "input": "hi", "stream": stream}
    return testing.TestClient(app).simulate_post(PATH, json=body, headers=headers)


def fails(error: CortexError) -> Says:
    def say(_request: GenerateRequest) -> list[Event | CortexError]:
        return [Failed(error.info())]

    return say


TOO_LONG = ContextLengthExceeded(prompt_tokens=9, max_tokens=8)


def test_a_stream_tells_of_a_prompt_that_is_too_long_by_the_event_that_codex_knows(
    fleet: FakeFleet,
) -> None:
    store = SlowStore(fleet)
    answer = asked(fleet, store, fails(TOO_LONG))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = answer.text.strip().split("\n\n")
    events = [json.loads(block.partition("data: ")[2]) for block in blocks]
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.failed",
    ]
    assert events[-1]["response"]["error"]["code"] == "context_length_exceeded"
    assert store.kept == []


@pytest.mark.parametrize("originator", ["codex_exec", "codex_cli_rs"])
@pytest.mark.parametrize("loading", [0, 3])
def test_codex_is_told_of_a_full_queue_by_the_event_after_which_it_asks_again(
    originator: str, loading: int
) -> None:
    fleet = FakeFleet("one", loading=loading)
    fleet.error = QueueFull("cannot queue: full", retry_after_s=2)
    answer = asked(fleet, SlowStore(fleet), answer_events, headers={"originator": originator})
    fleet.close()
    assert answer.status_code == 200
    event = json.loads(answer.text.strip().split("\n\n")[-1].partition("data: ")[2])
    assert event["type"] == "response.failed"
    assert event["response"]["error"] == {
        "code": "rate_limit_exceeded",
        "message": "cannot queue: full; try again in 2.0s",
    }
    fleet = FakeFleet("one")
    fleet.error = QueueFull("cannot queue: full", retry_after_s=2)
    whole = asked(
        fleet, SlowStore(fleet), answer_events, stream=False, headers={"originator": originator}
    )
    fleet.close()
    assert (whole.status_code, whole.headers["retry-after"]) == (429, "2")


@pytest.mark.parametrize(
    ("error", "stream", "status"),
    [(TOO_LONG, False, 400), (QueueFull("cannot queue: full", retry_after_s=2), True, 429)],
)
def test_other_early_errors_have_a_status_of_their_own(
    fleet: FakeFleet, error: CortexError, stream: bool, status: int
) -> None:
    fleet.error = error
    answer = asked(fleet, SlowStore(fleet), answer_events, stream=stream)
    assert answer.status_code == status
    assert answer.json["error"]["code"] == error.code


def test_a_client_hears_something_and_holds_no_replica_while_its_response_is_kept(
    fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "PING_S", 0.01)
    store: Any = SlowStore(fleet)
    answer = asked(fleet, store, answer_events)
    assert answer.status_code == 200
    assert store.num_heard == 1
    assert store.in_flight == 0
    (row,) = store.kept
    assert TEXT in row.response.decode()
    events = answer.text.strip().split("\n\n")
    assert events[-2].startswith(": ping")
    assert "response.completed" in events[-1]
