"""What a route counts of requests that come to nothing."""

import logging
from collections.abc import Iterator

import pytest
from falcon import testing
from falcon.asgi import App
from prometheus_client import CollectorRegistry

from cortex_core.dialects.openai_chat import OpenAIChat
from cortex_core.errors import CortexError, OutOfMemory, Overloaded, QueueFull
from cortexd.drain import Drain
from cortexd.gateway import Gateway
from cortexd.metrics import GatewayMetrics
from cortexd.resources.errors import install_error_handlers
from cortexd.resources.generation import GenerationResource
from tests.fakes.fake_fleet import FakeFleet, FakeNodes

PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]


class Route:
    """One route over a fleet in memory."""

    def __init__(self, fleet: FakeFleet) -> None:
        self.registry = CollectorRegistry()
        self.drain = Drain()
        metrics = GatewayMetrics(self.registry)
        gateway = Gateway(
            fleet=fleet, nodes=FakeNodes(), metrics=metrics, drain=self.drain, clock=lambda: 0.0
        )
        app = App()
        install_error_handlers(app)
        app.add_route(PATH, GenerationResource(OpenAIChat(), gateway, lambda: 0.0))
        self.client = testing.TestClient(app)

    def post(self, body: object) -> int:
        return int(self.client.simulate_post(PATH, json=body).status_code)

    def counted(self, name: str, **labels: str) -> float | None:
        known = {"model": "unknown", "node": ""} | labels
        return self.registry.get_sample_value(f"cortex_{name}", known)


@pytest.fixture
def route() -> Iterator[Route]:
    fleet = FakeFleet("one")
    yield Route(fleet)
    fleet.close()


def test_what_is_left_out_of_a_request_is_logged(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "cortexd.resources.generation")
    tools = [{"type": "web_search"}]
    assert route.post({"model": "nope", "messages": MESSAGES, "tools": tools}) == 404
    (record,) = caplog.records
    assert "tools[0]" in repr(vars(record))


def test_a_refusal_is_found_in_the_log_by_its_request_id(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer = route.client.simulate_post(PATH, json={"model": "nope", "messages": MESSAGES})
    request_id = answer.headers["x-request-id"]
    assert answer.json["error"]["request_id"] == request_id
    (record,) = caplog.records
    assert request_id in repr(vars(record))
    assert record.levelno == logging.INFO


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "level"),
    [
        (OutOfMemory("cannot load"), 503, logging.WARNING),
        (Overloaded("cannot place", retry_after_s=2.0), 503, logging.INFO),
        (QueueFull("cannot queue", retry_after_s=2.0), 429, logging.INFO),
    ],
)
def test_a_request_that_fails_before_its_first_byte_is_logged_once(
    caplog: pytest.LogCaptureFixture,
    error: CortexError,
    status: int,
    level: int,
    stream: bool,
) -> None:
    caplog.set_level(logging.DEBUG, "cortexd")
    fleet = FakeFleet("one")
    fleet.error = error
    answer = Route(fleet).post({"model": "m", "messages": MESSAGES, "stream": stream})
    fleet.close()
    assert answer == status
    (record,) = caplog.records
    assert (record.message, record.levelno) == ("request failed", level)
    assert error.message in repr(vars(record))


@pytest.mark.parametrize("stream", [True, False])
def test_a_defect_is_logged_once(caplog: pytest.LogCaptureFixture, stream: bool) -> None:
    caplog.set_level(logging.DEBUG, "cortexd")
    fleet = FakeFleet("none")  # a node that the fake knows nothing of
    answer = Route(fleet).post({"model": "m", "messages": MESSAGES, "stream": stream})
    fleet.close()
    assert answer == 500
    (record,) = caplog.records
    assert record.exc_info


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "m", "messages": MESSAGES, "temperature": -1}, 400, "invalid_request"),
        ({"model": "evil name", "messages": MESSAGES}, 404, "model_not_found"),
    ],
)
def test_refused_requests_are_counted_without_the_clients_words(
    route: Route, body: object, status: int, code: str
) -> None:
    assert route.post(body) == status
    assert route.counted("requests_total") == 1
    assert route.counted("request_errors_total", code=code) == 1


def test_requests_refused_while_draining_are_counted(route: Route) -> None:
    route.drain.begin()
    assert route.post({"model": "m", "messages": MESSAGES}) == 503
    assert route.counted("request_errors_total", code="shutting_down") == 1
