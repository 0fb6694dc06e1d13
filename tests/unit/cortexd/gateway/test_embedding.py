"""Embedding requests over a fleet in memory: who is asked, and what comes of failures."""

from collections.abc import AsyncGenerator, Callable

import pytest
from prometheus_client import CollectorRegistry

from cortex_core.canonical import (
    Completed,
    Failed,
    Ping,
    TextPrompt,
    Usage,
)
from cortex_core.canonical_embedding import EmbedAnswer, Embedded, EmbedEvent, EmbedRequest
from cortex_core.errors import (
    CortexError,
    DeviceFailed,
    InvalidRequest,
    NodeUnavailable,
    QueueFull,
    ShuttingDown,
)
from cortex_core.ids import ModelId, RequestId
from cortexd.continuation import MAX_ATTEMPTS
from cortexd.drain import Drain
from cortexd.embedding import EmbeddingGateway
from cortexd.metrics import GatewayMetrics
from tests.fakes.fake_fleet import MODEL, FakeFleet

REQUEST = EmbedRequest(RequestId("r"), ModelId("m"), (TextPrompt("a"), TextPrompt("b")))
WHOLE: list[EmbedEvent | CortexError] = [
    Ping(),
    Embedded(1, b"bbbb"),
    Embedded(0, b"aaaa"),
    Completed(Usage(4, 0)),
]


class Nodes:
    """What each node says, by its name; an error is raised."""

    def __init__(self, **says: list[EmbedEvent | CortexError]) -> None:
        self.says = says
        self.asked: list[str] = []
        self.on_event: Callable[[], None] = lambda: None

    async def embed(
        self, endpoint: str, _request: EmbedRequest
    ) -> AsyncGenerator[EmbedEvent, None]:
        name = endpoint.removeprefix("http://")
        self.asked.append(name)
        for said in self.says[name]:
            self.on_event()
            if isinstance(said, CortexError):
                raise said
            yield said


class Bench:
    def __init__(self, **says: list[EmbedEvent | CortexError]) -> None:
        self.fleet, self.nodes, self.drain = FakeFleet(*says), Nodes(**says), Drain()
        self.registry = CollectorRegistry()
        self.now = 0.0
        self.gateway = EmbeddingGateway(
            fleet=self.fleet,
            nodes=self.nodes,
            metrics=GatewayMetrics(self.registry),
            drain=self.drain,
            clock=self.clock,
        )

    def clock(self) -> float:
        self.now += 0.125
        return self.now

    async def ask(self) -> EmbedAnswer:
        try:
            return await self.gateway.embed(self.gateway.prepare(REQUEST), "/v1/embeddings")
        finally:
            assert self.fleet.in_flight() == 0
            self.fleet.close()

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"cortex_{name}", {"model": MODEL, **labels})


async def test_vectors_come_in_the_order_of_the_inputs_and_are_counted() -> None:
    bench = Bench(one=WHOLE)
    assert (await bench.ask()).vectors == (b"aaaa", b"bbbb")
    assert bench.metric("requests_total", node="one") == 1
    assert bench.metric("prompt_tokens_total", node="one") == 4


@pytest.mark.parametrize("said", range(4))
async def test_a_node_that_breaks_off_is_reported_and_another_asked(said: int) -> None:
    bench = Bench(one=[*WHOLE[:said], NodeUnavailable("gone")], two=WHOLE)
    assert (await bench.ask()).vectors == (b"aaaa", b"bbbb")
    assert bench.nodes.asked == ["one", "two"]
    assert [replica for replica, _ in bench.fleet.reported] == [f"one/{MODEL}"]


async def test_a_failure_in_the_stream_is_tried_elsewhere_too() -> None:
    bench = Bench(one=[Failed(DeviceFailed("dead").info())], two=WHOLE)
    assert (await bench.ask()).usage == Usage(4, 0)


async def test_a_wrong_request_is_asked_of_nobody_else() -> None:
    bench = Bench(one=[InvalidRequest("cannot: bad")], two=WHOLE)
    with pytest.raises(InvalidRequest):
        await bench.ask()
    assert bench.nodes.asked == ["one"]
    assert bench.metric("request_errors_total", node="one", code="invalid_request") == 1


async def test_a_request_that_kills_each_device_is_given_two() -> None:
    kills: list[EmbedEvent | CortexError] = [Failed(DeviceFailed("dead").info())]
    bench = Bench(one=kills, two=kills, three=WHOLE)
    with pytest.raises(DeviceFailed, match="2 devices died"):
        await bench.ask()
    assert bench.nodes.asked == ["one", "two"]


async def test_tries_have_an_end() -> None:
    bench = Bench(one=[NodeUnavailable("gone")])
    with pytest.raises(NodeUnavailable):
        await bench.ask()
    assert len(bench.nodes.asked) == MAX_ATTEMPTS


async def test_a_node_that_stays_full_is_asked_again_until_the_wait_is_over() -> None:
    full = QueueFull("cannot queue: full", retry_after_s=1.5)
    bench = Bench(one=[full])
    bench.fleet.max_wait_s = 3.0
    with pytest.raises(QueueFull) as told:
        await bench.ask()
    assert told.value is full
    assert len(bench.nodes.asked) > 2 * MAX_ATTEMPTS
    assert set(bench.fleet.full) == {(f"one/{MODEL}", 1.5)}
    assert not bench.fleet.reported


async def test_a_model_that_gives_no_vectors_is_refused_before_it_is_loaded() -> None:
    bench = Bench(one=WHOLE)
    bench.fleet.can = ("completions", "chat")
    with pytest.raises(InvalidRequest, match="gives no embeddings"):
        await bench.ask()
    assert bench.nodes.asked == []


async def test_a_drain_takes_nothing_new_and_ends_what_outlasts_it() -> None:
    bench = Bench(one=WHOLE)
    bench.nodes.on_event = bench.drain.expire
    with pytest.raises(ShuttingDown):
        await bench.ask()
    with pytest.raises(ShuttingDown):
        bench.gateway.prepare(REQUEST)
