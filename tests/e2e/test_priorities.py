"""Who is served first, at the gateway and at the node: service tiers, and turns of clients."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from cortex_core.ids import ModelId
from tests.fakes.fleet_process import FleetProcess, fleet_process
from tests.fakes.scripted_models import write_script
from tests.fakes.waiting import wait_until

LONG = "".join(f"{number}, " for number in range(1500))
RULES = ({"contains": ["count"], "answer": LONG}, {"answer": "Yes."})
TOKENS_PER_SECOND = 20
"""A long answer takes minutes, for which it holds its place."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    """A fleet of which one model takes a request at a time, and another one computes one."""
    root = tmp_path_factory.mktemp("priorities")
    one_placed, one_computed = (
        write_script(root / name, *RULES, tokens_per_second=TOKENS_PER_SECOND)
        for name in ("placed", "computed")
    )
    toml = f"""
[[models]]
id = "{one_placed}"
context_tokens = 16384
max_in_flight = 1
max_wait_s = 600

[[models]]
id = "{one_computed}"
context_tokens = 16384
max_sequences = 1

[aliases]
"placed" = "{one_placed}"
"computed" = "{one_computed}"
"""
    with fleet_process(root, one_placed, one_computed, models_toml=toml, workers=1) as started:
        yield started
        started.stop()


@pytest.fixture
def ask(fleet: FleetProcess) -> Iterator[Callable[..., Future[ChatCompletion]]]:
    """Asks in the background."""

    def asked(model: str, tier: str, key: str) -> ChatCompletion:
        return fleet.openai.with_options(api_key=key).chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Is it?"}],
            extra_body={"service_tier": tier},
            timeout=600.0,
        )

    with ThreadPoolExecutor() as pool:
        yield lambda model, tier, key="none": pool.submit(asked, model, tier, key)


def counting(fleet: FleetProcess, model: str) -> openai.Stream[ChatCompletionChunk]:
    """Return a stream that goes on for minutes, once it has begun."""
    stream = fleet.openai.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Please count."}],
        service_tier="auto",
        stream=True,
    )
    assert next(stream).service_tier == "default"
    return stream


def text_of(stream: openai.Stream[ChatCompletionChunk], *, num_chunks: int) -> str:
    chunks = itertools.islice(stream, num_chunks)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def in_order_of_their_ends(fleet: FleetProcess, answers: list[ChatCompletion]) -> list[int]:
    """Return the indexes of answers in the order in which the gateway was done with them."""
    told = fleet.gateway.text()
    ends = [told.index(answer.id.removeprefix("chatcmpl-")) for answer in answers]
    return sorted(range(len(answers)), key=ends.__getitem__)


def test_a_higher_tier_overtakes_those_that_wait_for_a_place(
    fleet: FleetProcess, ask: Callable[..., Future[ChatCompletion]]
) -> None:
    tiers = ["flex", "default", "auto", "priority"]
    asked: list[Future[ChatCompletion]] = []
    with counting(fleet, "placed"):
        for tier in tiers:
            asked.append(ask("placed", tier))
            wait_until(lambda: fleet.metric("cortex_model_queue_depth") == len(asked))
    answers = [each.result() for each in asked]
    assert [answer.service_tier for answer in answers] == ["flex", "default", "default", "priority"]
    assert in_order_of_their_ends(fleet, answers) == [3, 1, 2, 0]


def test_clients_that_name_no_user_take_turns(
    fleet: FleetProcess, ask: Callable[..., Future[ChatCompletion]]
) -> None:
    asked: list[Future[ChatCompletion]] = []
    with counting(fleet, "placed"):
        for key in ("ada", "ada", "ada", "bob"):
            asked.append(ask("placed", "auto", key))
            wait_until(lambda: fleet.metric("cortex_model_queue_depth") == len(asked))
    answers = [each.result() for each in asked]
    assert in_order_of_their_ends(fleet, answers) == [0, 3, 1, 2]


def test_a_higher_tier_takes_the_place_of_one_that_is_being_computed(
    fleet: FleetProcess, ask: Callable[..., Future[ChatCompletion]]
) -> None:
    model = ModelId(f"file:{fleet.root / 'computed'}")
    with counting(fleet, "computed") as stream:
        text = text_of(stream, num_chunks=3)
        waiting = ask("computed", "default")
        wait_until(lambda: fleet.model(model).waiting == 1)
        answer = ask("computed", "priority").result()
        assert answer.choices[0].message.content == "Yes."
        wait_until(lambda: fleet.node_metric("neuron_preemptions_total", model=model) == 1)
        # It goes on where it was, before what came after it.
        text += text_of(stream, num_chunks=30)
        assert LONG.startswith(text)
        assert not waiting.done()
    assert waiting.result().choices[0].message.content == "Yes."
