"""The gateway over a fleet in memory: who is asked, what the client sees, what is let go."""

from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from cortex_core.canonical import (
    Completed,
    Event,
    Failed,
    GenerateRequest,
    Loading,
    Ping,
    SamplingParams,
    Started,
    TextDelta,
    TextPrompt,
)
from cortex_core.errors import (
    ContextLengthExceeded,
    CortexError,
    DeviceFailed,
    InvalidRequest,
    ModelNotFound,
    ModelNotLoaded,
    NodeUnavailable,
    Overloaded,
    QueueFull,
    ShuttingDown,
)
from cortex_core.ids import ModelId, RequestId
from cortexd.continuation import MAX_ATTEMPTS
from cortexd.drain import Drain
from cortexd.gateway import Gateway
from cortexd.metrics import GatewayMetrics
from tests.fakes.fake_fleet import MODEL, FakeFleet, FakeNodes, Says
from tests.fakes.scripts import TEXT, answer_events

REQUEST = GenerateRequest(RequestId("r1"), ModelId("m"), TextPrompt("hi"))
PATH = "/v1/completions"
BROKEN = NodeUnavailable("cannot go on: broken")


def whole(request: GenerateRequest) -> list[Event | CortexError]:
    return list(answer_events(request))


def broken_after(count: int, error: CortexError = BROKEN) -> Says:
    return lambda request: [*answer_events(request)[:count], error]


class Bench:
    """A gateway with everything around it."""

    def __init__(self, fleet: FakeFleet, nodes: FakeNodes) -> None:
        self.fleet = fleet
        self.nodes = nodes
        self.drain = Drain()
        self.registry = CollectorRegistry()
        self.now = 0.0
        self.gateway = Gateway(
            fleet=fleet,
            nodes=nodes,
            metrics=GatewayMetrics(self.registry),
            drain=self.drain,
            clock=self.clock,
        )

    def clock(self) -> float:
        self.now += 0.125
        return self.now

    async def ask(self, request: GenerateRequest = REQUEST) -> list[Event]:
        prepared = self.gateway.prepare(request)
        return [event async for event in self.gateway.generate(prepared, PATH)]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"cortex_{name}", {"model": MODEL, **labels})


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[Bench] = []

    def make_bench(*, loading: int = 0, **says: Says) -> Bench:
        bench = Bench(FakeFleet(*says, loading=loading), FakeNodes(**says))
        made.append(bench)
        return bench

    yield make_bench
    for bench in made:
        assert bench.fleet.in_flight() == 0
        assert len(bench.nodes.closed) == len(bench.nodes.asked)
        bench.fleet.close()


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_request_goes_through(make: Any) -> None:
    bench = make(one=whole, loading=2)
    events = await bench.ask()
    assert [type(event) for event in events[:4]] == [Loading, Loading, Ping, Started]
    assert text_of(events) == TEXT
    assert isinstance(events[-1], Completed)
    assert sum(isinstance(event, Started) for event in events) == 1


async def test_prompt_ids_stay_inside(make: Any) -> None:
    started = next(e for e in await make(one=whole).ask() if isinstance(e, Started))
    assert started.prompt_token_ids is None


def test_prepare_finds_the_model_and_fixes_a_seed(make: Any) -> None:
    gateway = make(one=whole).gateway
    first, second = gateway.prepare(REQUEST), gateway.prepare(REQUEST)
    assert first.model == MODEL
    assert first.sampling.seed != second.sampling.seed
    chosen = msgspec.structs.replace(REQUEST, sampling=SamplingParams(seed=7))
    assert gateway.prepare(chosen).sampling.seed == 7


def test_prepare_refuses_unknown_models_and_work_during_a_drain(make: Any) -> None:
    bench = make(one=whole)
    unknown = msgspec.structs.replace(REQUEST, model=ModelId("nope"))
    with pytest.raises(ModelNotFound):
        bench.gateway.prepare(unknown)
    bench.drain.begin()
    with pytest.raises(ShuttingDown) as refused:
        bench.gateway.prepare(REQUEST)
    assert refused.value.retry_after_s is not None


def test_prepare_refuses_to_chat_with_a_model_of_embeddings(make: Any) -> None:
    bench = make(one=whole)
    bench.fleet.can = ("embeddings",)
    with pytest.raises(InvalidRequest, match="it gives embeddings") as refused:
        bench.gateway.prepare(REQUEST)
    assert refused.value.param == "model"


@pytest.mark.parametrize("sent", range(8))
async def test_stream_is_whole_wherever_the_first_node_breaks(make: Any, sent: int) -> None:
    bench = make(one=broken_after(sent), two=whole)
    events = await bench.ask()
    assert text_of(events) == TEXT
    assert sum(isinstance(event, Started) for event in events) == 1
    last = events[-1]
    assert isinstance(last, Completed)
    assert last.usage.completion_tokens == 5
    assert last.usage.prompt_tokens == 3
    assert [replica for replica, _ in bench.fleet.reported] == [f"one/{MODEL}"]


async def test_last_event_alone_is_not_asked_of_anybody(make: Any) -> None:
    everything_but_completed = 7
    bench = make(one=broken_after(everything_but_completed), two=whole)
    assert isinstance((await bench.ask())[-1], Completed)
    assert [name for name, _ in bench.nodes.asked] == ["one"]


async def test_continuation_carries_what_was_sent(make: Any) -> None:
    bench = make(one=broken_after(3), two=whole)
    await bench.ask()
    again = bench.nodes.asked[1][1].continue_from
    assert again is not None
    assert again.prompt_token_ids == (11, 12, 13)
    assert again.output_token_ids == (0, 1)
    assert again.next_seq == 2


async def test_continuation_of_a_continuation(make: Any) -> None:
    bench = make(one=broken_after(2), two=broken_after(3), three=whole)
    events = await bench.ask()
    assert text_of(events) == TEXT
    again = bench.nodes.asked[2][1].continue_from
    assert again is not None
    assert again.output_token_ids == (0, 1, 2)
    assert bench.metric("streams_continued_total", node="one") == 1
    assert bench.metric("streams_continued_total", node="two") == 1


async def test_node_that_repeats_itself_doubles_nothing(make: Any) -> None:
    def from_the_start(request: GenerateRequest) -> list[Event | CortexError]:
        return list(answer_events(msgspec.structs.replace(request, continue_from=None)))

    bench = make(one=broken_after(4), two=from_the_start)
    assert text_of(await bench.ask()) == TEXT


async def test_node_that_leaves_something_out_is_not_believed(make: Any) -> None:
    def with_a_hole(request: GenerateRequest) -> list[Event | CortexError]:
        events = answer_events(request)
        return [events[0], *events[2:]]

    bench = make(one=broken_after(3), two=with_a_hole, three=whole)
    assert text_of(await bench.ask()) == TEXT


async def test_several_choices_start_again_but_do_not_continue(make: Any) -> None:
    two = msgspec.structs.replace(REQUEST, n=2)
    assert isinstance((await make(one=broken_after(1), two=whole).ask(two))[-1], Completed)
    events = await make(one=broken_after(2), two=whole).ask(two)
    assert events[-1] == Failed(BROKEN.info())


@pytest.mark.parametrize(
    "error",
    [BROKEN, DeviceFailed("cannot: dead"), ModelNotLoaded("cannot: gone"), ShuttingDown("no")],
)
async def test_errors_of_a_node_are_tried_elsewhere(make: Any, error: CortexError) -> None:
    bench = make(one=broken_after(0, error), two=whole)
    assert text_of(await bench.ask()) == TEXT
    assert bench.fleet.reported


async def test_full_node_is_reported_as_full_and_not_as_broken(make: Any) -> None:
    bench = make(one=broken_after(0, QueueFull("cannot: full", retry_after_s=1.5)), two=whole)
    assert text_of(await bench.ask()) == TEXT
    assert not bench.fleet.reported
    assert bench.fleet.full == [(f"one/{MODEL}", 1.5)]


@pytest.mark.parametrize("sent", [0, 3])
async def test_node_that_stays_full_is_asked_again_until_the_wait_is_over(
    make: Any, sent: int
) -> None:
    full = QueueFull("cannot queue: full", retry_after_s=1.0)
    first_whole = [broken_after(sent)] if sent else []

    def says(request: GenerateRequest) -> list[Event | CortexError]:
        return first_whole.pop()(request) if first_whole else [full]

    bench = make(one=says)
    bench.fleet.max_wait_s = 3.0
    assert (await bench.ask())[-1] == Failed(full.info())
    assert len(bench.nodes.asked) > 2 * MAX_ATTEMPTS
    assert bench.metric("request_errors_total", node="one", code="queue_full") == 1


async def test_errors_of_the_request_are_not_tried_elsewhere(make: Any) -> None:
    error = ContextLengthExceeded(prompt_tokens=9, max_tokens=4)
    bench = make(one=broken_after(0, error), two=whole)
    assert await bench.ask() == [Failed(error.info())]
    assert len(bench.nodes.asked) == 1


async def test_failed_event_is_an_error_like_any_other(make: Any) -> None:
    dead = DeviceFailed("cannot go on: dead")

    def fails(request: GenerateRequest) -> list[Event | CortexError]:
        return [*answer_events(request)[:3], Failed(dead.info())]

    assert text_of(await make(one=fails, two=whole).ask()) == TEXT
    several = msgspec.structs.replace(REQUEST, n=2)
    assert (await make(one=fails).ask(several))[-1] == Failed(dead.info())


@pytest.mark.parametrize(("sent", "most"), [(1, 2), (2, 3)])
async def test_request_that_kills_each_device_is_given_few(make: Any, sent: int, most: int) -> None:
    dead = DeviceFailed("cannot go on: the actor was ended", retry_after_s=1.0)
    kills = broken_after(sent, dead)
    bench = make(one=kills, two=kills, three=kills, four=whole)
    last = (await bench.ask())[-1]
    assert [name for name, _ in bench.nodes.asked] == ["one", "two", "three"][:most]
    assert isinstance(last, Failed)
    assert last.error.code == "device_failed"
    assert f"{most} devices died" in last.error.message
    assert last.error.retry_after_s is None


async def test_a_device_that_was_down_before_did_not_die_under_a_request(make: Any) -> None:
    down = broken_after(0, DeviceFailed("cannot use device cpu: it is starting"))
    bench = make(one=down, two=down, three=whole)
    assert text_of(await bench.ask()) == TEXT


async def test_what_one_request_takes_too_much_of_says_nothing_of_the_node(make: Any) -> None:
    error = Overloaded("cannot read an image: no memory for it", retry_after_s=1.0)
    bench = make(one=broken_after(0, error))
    assert (await bench.ask())[-1] == Failed(error.info())
    assert len(bench.nodes.asked) == MAX_ATTEMPTS
    assert bench.fleet.full == []


async def test_attempts_are_bounded(make: Any) -> None:
    bench = make(one=broken_after(0))
    assert await bench.ask() == [*[Ping()] * (MAX_ATTEMPTS - 1), Failed(BROKEN.info())]
    assert len(bench.nodes.asked) == MAX_ATTEMPTS


async def test_stream_that_gets_on_may_break_ever_again(make: Any) -> None:
    one_token_each = broken_after(2)
    bench = make(one=one_token_each)
    assert text_of(await bench.ask()) == TEXT
    assert len(bench.nodes.asked) > MAX_ATTEMPTS


async def test_stream_that_ends_without_a_word_is_an_error(make: Any) -> None:
    bench = make(one=lambda request: list(answer_events(request)[:2]), two=whole)
    assert text_of(await bench.ask()) == TEXT


async def test_refusal_of_the_fleet_is_the_clients(make: Any) -> None:
    bench = make(one=whole)
    bench.fleet.error = QueueFull("cannot queue: full", retry_after_s=2)
    assert await bench.ask() == [Failed(bench.fleet.error.info())]
    assert bench.metric("request_errors_total", node="", code="queue_full") == 1


async def test_defect_becomes_an_internal_error(make: Any) -> None:
    def defect(_request: GenerateRequest) -> list[Event | CortexError]:
        raise ZeroDivisionError

    bench = make(one=defect)
    (failed,) = await bench.ask()
    assert isinstance(failed, Failed)
    assert failed.error.code == "internal_error"
    assert "ZeroDivision" not in failed.error.message


@pytest.mark.parametrize("taken", [1, 3, 5])
async def test_client_that_leaves_lets_everything_go(make: Any, taken: int) -> None:
    bench = make(one=whole, loading=2)
    async with aclosing(bench.gateway.generate(bench.gateway.prepare(REQUEST), PATH)) as events:
        for _ in range(taken):
            await anext(events)
    assert bench.fleet.given_up == (taken <= 2)
    node = "one" if taken > 2 else ""
    assert bench.metric("requests_cancelled_total", node=node) == 1


def two_prompts(bench: Bench) -> Any:
    """Begin the requests of one call with two prompts, r1 and r1-2."""
    second = msgspec.structs.replace(REQUEST, request_id=RequestId("r1-2"))
    prepared = [bench.gateway.prepare(request) for request in (REQUEST, second)]
    return aclosing(bench.gateway.generate_together(prepared, PATH))


def long_answer(request: GenerateRequest) -> list[Event | CortexError]:
    """Say more than is read ahead of the client."""
    return list(answer_events(request, ("word",) * 200))


async def test_prompts_of_one_call_end_with_the_one_that_fails_and_not_as_cancelled(
    make: Any,
) -> None:
    error = ContextLengthExceeded(prompt_tokens=9, max_tokens=4)
    bench = make(one=lambda r: [error] if r.request_id == "r1" else long_answer(r))
    async with two_prompts(bench) as events:
        last = [event async for event in events][-1]
    assert last == Failed(error.info())
    assert bench.metric("requests_total", node="one") == 2
    assert bench.metric("request_errors_total", node="one", code=error.code) == 2
    assert bench.metric("requests_cancelled_total", node="one") == 0


async def test_a_defect_is_logged_with_its_traceback_by_the_prompt_that_met_it(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def defect(request: GenerateRequest) -> list[Event | CortexError]:
        if request.request_id == "r1":
            raise ZeroDivisionError
        return long_answer(request)

    bench = make(one=defect)
    async with two_prompts(bench) as events:
        (*_, last) = [event async for event in events]
    assert isinstance(last, Failed)
    assert [record.exc_info is not None for record in caplog.records] == [True, False]
    assert bench.metric("request_errors_total", node="one", code="internal_error") == 2


async def test_prompts_of_one_call_whose_client_leaves_are_cancelled(make: Any) -> None:
    bench = make(one=long_answer)
    async with two_prompts(bench) as events:
        await anext(events)
    assert bench.metric("requests_cancelled_total", node="one") == 2


async def test_expired_drain_ends_streams_with_an_error(make: Any) -> None:
    bench = make(one=whole, two=whole)
    async with aclosing(bench.gateway.generate(bench.gateway.prepare(REQUEST), PATH)) as events:
        await anext(events)
        bench.drain.expire()
        rest = [event async for event in events]
    assert [type(event) for event in rest] == [Failed]
    assert rest[0].error.code == "shutting_down"
    assert not bench.fleet.reported
    assert len(bench.nodes.asked) == 1


async def test_expired_drain_ends_waiting_too(make: Any) -> None:
    bench = make(one=whole, loading=5)
    async with aclosing(bench.gateway.generate(bench.gateway.prepare(REQUEST), PATH)) as events:
        await anext(events)
        bench.drain.expire()
        rest = [event async for event in events]
    assert rest[-1].error.code == "shutting_down"


async def test_another_replica_and_its_started_are_signs_of_life(make: Any) -> None:
    events = await make(one=broken_after(2), two=whole).ask()
    assert events.count(Ping()) == 2


async def test_metrics_of_a_good_request(make: Any) -> None:
    bench = make(one=whole)
    await bench.ask()
    assert bench.metric("requests_total", node="one") == 1
    assert bench.metric("prompt_tokens_total", node="one") == 3
    assert bench.metric("completion_tokens_total", node="one") == 5
    assert bench.metric("request_duration_seconds_count", node="one") == 1
    assert bench.metric("time_to_first_token_seconds_count", node="one") == 1
    assert bench.metric("time_to_first_token_seconds_bucket", node="one", le="0.25") == 1
    assert bench.metric("tokens_per_second_count", node="one") == 1
    assert bench.metric("request_errors_total", node="one", code="internal_error") is None
