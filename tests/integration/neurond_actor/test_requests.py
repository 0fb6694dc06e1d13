"""Requests through a real actor process and back."""

import asyncio
from collections.abc import Callable

import pytest

from cortex_core.canonical import SamplingParams
from cortex_core.errors import (
    ContextLengthExceeded,
    CortexError,
    InternalError,
    ModelNotLoaded,
    OutOfMemory,
    Overloaded,
    QueueFull,
)
from cortex_core.neuron_api import KvUse
from neurond.engine.blocks import blocks_for
from neurond.memory_plan import BLOCK_TOKENS
from neurond.stream_items import Admitted, Adopted, Token
from neurond.supervisor.streams import HIGH_WATER_TOKENS, LOW_WATER_TOKENS
from tests.fakes.actor_node import Node, collect, finishes_of, tokens_of
from tests.fakes.fake_engine import BROKEN, EXHAUSTED, HANG, NAN, NUM_BLOCKS
from tests.fakes.waiting import WAIT_S, wait_until_async

MUCH = 1500
"""Tokens of an answer that goes on for longer than any test looks at it."""


async def test_tokens_of_a_request_come_back_in_order(node: Node) -> None:
    model_id = await node.loaded()

    items = await collect(node.submit(model_id, [10, 11, 12], max_tokens=5))

    assert items[0] == Admitted(cached_tokens=0)
    assert tokens_of(items) == [13, 14, 15, 16, 17]
    assert finishes_of(items) == {0: "length"}


async def test_a_request_is_admitted_before_its_first_step_is_computed(
    make_node: Callable[..., Node],
) -> None:
    node = make_node(stop_grace_s=0.1)
    await node.start()

    stream = node.submit(await node.loaded(), [HANG])

    assert await stream.take(WAIT_S) == [Admitted(cached_tokens=0)]


async def test_what_was_computed_for_another_request_meanwhile_counts_as_cached(node: Node) -> None:
    model_id = await node.loaded("costly")  # so that they come while the first is computed
    prompt = list(range(1100))

    first = node.submit(model_id, prompt, max_tokens=2)
    begun = await first.take(WAIT_S)
    # Those of one principal would wait for their turn.
    others = [node.submit(model_id, prompt, max_tokens=2, principal=name) for name in "bc"]
    told = [begun, *await asyncio.gather(*map(collect, others))]
    await collect(first)

    cached = [
        [item.cached_tokens for item in items if isinstance(item, Admitted | Adopted)][-1]
        for items in told
    ]
    assert cached[0] == 0
    assert min(cached[1:]) >= 1024, "what is left fits into a step with the first one's rest"


async def test_the_use_of_blocks_is_told_while_it_changes_and_afterwards(paced_node: Node) -> None:
    model_id = await paced_node.loaded()

    def use() -> KvUse:
        return paced_node.supervisor.model(model_id).kv or KvUse(blocks=0)

    await wait_until_async(lambda: use() == KvUse(blocks=NUM_BLOCKS))
    stream = paced_node.submit(model_id, list(range(100)), max_tokens=MUCH)
    await wait_until_async(lambda: use().used > 100 // BLOCK_TOKENS)
    stream.cancel()
    await wait_until_async(lambda: use().used == 0)

    assert use().cached >= 100 // BLOCK_TOKENS


async def test_a_prompt_leaves_the_device_to_those_who_decode_with_another_model(
    node: Node,
) -> None:
    telling, other = await node.loaded("costly-a"), await node.loaded("costly-b")
    told = node.library.folder(other) / "chunks"

    async def chunks(number: int) -> list[str]:
        known = len(told.read_text().split()) if told.exists() else 0
        prompt = list(range(1000 * number, 1000 * number + 300))
        await collect(node.submit(other, prompt, max_tokens=1))
        return told.read_text().split()[known:]

    assert await chunks(0) == ["300"]
    for attempt in range(1, 11):
        # On a machine that is held up it may have ended, or be paused, when the prompt arrives.
        stream = node.submit(telling, [10], max_tokens=MUCH)
        while not tokens_of(await stream.take(WAIT_S)):
            pass
        answer = asyncio.create_task(collect(stream))
        found = await chunks(attempt)
        stream.cancel()
        await answer
        if max(map(int, found)) <= 64:
            return
    raise AssertionError(f"who decodes waits for chunks of {found}")


async def test_what_comes_is_served_between_two_pieces_of_memory_made_resident(node: Node) -> None:
    model_id = await node.loaded("fresh")
    told = node.library.folder(model_id) / "frontier"

    def frontier() -> int | None:
        return int(told.read_text()) if told.exists() else None

    await wait_until_async(lambda: frontier() == 0)
    items = await collect(node.submit(model_id, list(range(100)), max_tokens=2))

    assert tokens_of(items) == [100, 101]
    await wait_until_async(lambda: (told.parent / "steps").read_text() == "2")
    await wait_until_async(lambda: frontier() == blocks_for(101, BLOCK_TOKENS))
    assert node.restarts == 0


async def test_logprobs_and_choices_come_back_with_their_index(node: Node) -> None:
    model_id = await node.loaded()

    stream = node.submit(model_id, [10], n=3, max_tokens=2, sampling=SamplingParams(logprobs=2))
    items = await collect(stream)

    assert [tokens_of(items, index) for index in range(3)] == [[11, 12]] * 3
    assert finishes_of(items) == {0: "length", 1: "length", 2: "length"}
    assert Token(2, 11, -0.5, ((11, -0.5), (12, -1.5))) in items


async def test_replayed_tokens_are_continued(node: Node) -> None:
    model_id = await node.loaded()

    items = await collect(node.submit(model_id, [10], replayed_token_ids=[500, 501], max_tokens=2))

    assert tokens_of(items) == [502, 503]


async def test_requests_on_two_models_run_at_once(paced_node: Node) -> None:
    one, other = await paced_node.loaded("one"), await paced_node.loaded("other")
    first = paced_node.submit(one, [10], max_tokens=MUCH)
    await first.take(WAIT_S)

    items = await collect(paced_node.submit(other, [20], max_tokens=3))

    assert tokens_of(items) == [21, 22, 23]
    assert paced_node.supervisor.model(one).running == 1
    first.cancel()


async def test_cancel_frees_the_engine_at_once(node: Node) -> None:
    model_id = await node.loaded()
    stream = node.submit(model_id, [10], max_tokens=MUCH)
    await stream.take(WAIT_S)

    stream.cancel()

    assert await collect(stream) == []
    await wait_until_async(lambda: node.in_flight(model_id) == 0)
    # With as many blocks as the whole cache has, this fits only if the other's were freed.
    whole = list(range(NUM_BLOCKS * 16 // 2 - 100))
    assert tokens_of(await collect(node.submit(model_id, whole, max_tokens=1))) == [len(whole)]


async def test_a_finished_choice_ends_alone(node: Node) -> None:
    model_id = await node.loaded()
    stream = node.submit(model_id, [10], n=2, max_tokens=40)
    begun = await stream.take(WAIT_S)

    stream.finish_choice(0)
    items = await collect(stream)

    assert tokens_of(items, 0) == []
    assert tokens_of(begun + items, 1) == list(range(11, 51))
    await wait_until_async(lambda: node.in_flight(model_id) == 0)


async def test_a_slow_reader_pauses_its_own_stream_only(paced_node: Node) -> None:
    model_id = await paced_node.loaded()
    slow = paced_node.submit(model_id, [10], max_tokens=MUCH)
    await wait_until_async(lambda: slow.paused)

    items = await collect(paced_node.submit(model_id, [20], max_tokens=MUCH))

    assert tokens_of(items) == list(range(21, 21 + MUCH))
    # What had been computed when the pause arrived is in the buffer; the rest is not.
    assert HIGH_WATER_TOKENS < slow.buffered_tokens < MUCH
    assert tokens_of(await collect(slow)) == list(range(11, 11 + MUCH))


async def test_a_reader_that_catches_up_resumes_its_stream(paced_node: Node) -> None:
    model_id = await paced_node.loaded()
    stream = paced_node.submit(model_id, [10], max_tokens=MUCH)
    await wait_until_async(lambda: stream.paused)

    while stream.buffered_tokens >= LOW_WATER_TOKENS:
        await stream.take(WAIT_S)
    assert stream.paused, "it has not come for more"
    await stream.take(WAIT_S)

    await wait_until_async(lambda: stream.buffered_tokens > LOW_WATER_TOKENS)
    stream.cancel()


async def test_a_small_ring_loses_nothing(make_node: Callable[..., Node]) -> None:
    node = make_node(ring_bytes=1024)
    await node.start()
    model_id = await node.loaded()

    stream = node.submit(model_id, [10], n=8, max_tokens=200)
    items = await collect(stream)

    assert [tokens_of(items, index) for index in range(8)] == [list(range(11, 211))] * 8


async def test_a_full_prompt_area_refuses_and_recovers(make_node: Callable[..., Node]) -> None:
    node = make_node(prompt_area_bytes=4096)
    await node.start()
    model_id = await node.loaded()
    first = node.submit(model_id, list(range(1000)), max_tokens=1)

    with pytest.raises(Overloaded, match="prompt") as caught:
        node.submit(model_id, list(range(100)), max_tokens=1)

    assert caught.value.retry_after_s is not None
    assert tokens_of(await collect(first)) == [1000]
    assert tokens_of(await collect(node.submit(model_id, list(range(1000))))) == [
        *range(1000, 1008)
    ]


async def test_requests_beyond_the_limit_are_refused(make_node: Callable[..., Node]) -> None:
    node = make_node(max_requests=2)
    await node.start()
    model_id = await node.loaded()
    running = [node.submit(model_id, [10], max_tokens=MUCH) for _ in range(2)]

    with pytest.raises(QueueFull, match="limit"):
        node.submit(model_id, [10])

    for stream in running:
        stream.cancel()
    await wait_until_async(lambda: node.in_flight(model_id) == 0)
    assert tokens_of(await collect(node.submit(model_id, [10], max_tokens=1))) == [11]


@pytest.mark.parametrize(
    ("prompt", "error"),
    [([BROKEN], InternalError), ([NAN], InternalError), ([EXHAUSTED], OutOfMemory)],
)
async def test_a_failing_step_fails_its_requests_and_nothing_else(
    node: Node, prompt: list[int], error: type[CortexError]
) -> None:
    model_id, other = await node.loaded(), await node.loaded("other")
    bystander = node.submit(other, [20], max_tokens=MUCH)

    with pytest.raises(error):
        await collect(node.submit(model_id, prompt))

    assert tokens_of(await collect(node.submit(model_id, [10], max_tokens=2))) == [11, 12]
    assert len(tokens_of(await collect(bystander))) == MUCH
    assert node.restarts == 0


async def test_too_long_a_prompt_fails_alone(node: Node) -> None:
    model_id = await node.loaded()

    with pytest.raises(ContextLengthExceeded, match="prompt is too long"):
        await collect(node.submit(model_id, list(range(5000))))

    assert tokens_of(await collect(node.submit(model_id, [10], max_tokens=1))) == [11]


async def test_a_model_that_is_not_loaded_is_refused(node: Node) -> None:
    model_id = node.library.add("absent")

    with pytest.raises(ModelNotLoaded):
        node.submit(model_id, [10])

    assert node.supervisor.model(model_id).status == "unloaded"


async def test_ping_answers_while_the_engine_is_busy(node: Node) -> None:
    model_id = await node.loaded()
    stream = node.submit(model_id, [10], max_tokens=MUCH)
    await stream.take(WAIT_S)

    assert (
        0 < await node.supervisor.ping(node.supervisor.discovery().devices[0].id, WAIT_S) < WAIT_S
    )

    stream.cancel()
