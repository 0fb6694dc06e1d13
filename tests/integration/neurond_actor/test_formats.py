"""Requests whose format is compiled beside the loop of a real actor."""

import msgspec
import pytest

from cortex_core.canonical import ResponseFormat, SamplingParams
from cortex_core.errors import InternalError, InvalidRequest, ModelNotLoaded
from cortex_core.ids import ModelId
from cortex_core.neuron_api import UnloadRequest
from neurond.stream_items import Admitted, NotHeld
from neurond.supervisor.streams import TokenStream
from tests.fakes.actor_node import Node, collect, finishes_of, tokens_of
from tests.fakes.waiting import wait_until_async


def ask(node: Node, model_id: ModelId, text: str, **changes: object) -> TokenStream:
    wanted = msgspec.json.encode(ResponseFormat("regex", text=text))
    return node.submit(model_id, [10], response_format=wanted, **changes)


async def test_an_answer_ends_with_its_format(node: Node) -> None:
    items = await collect(ask(node, await node.loaded(), "3", n=2))

    assert items[0] == Admitted(0)
    assert [tokens_of(items, index) for index in range(2)] == [[11, 12, 13]] * 2
    assert finishes_of(items) == {0: "stop", 1: "stop"}


async def test_a_format_that_is_not_complete_is_cut_by_max_tokens(node: Node) -> None:
    items = await collect(ask(node, await node.loaded(), "30", max_tokens=2))
    assert tokens_of(items) == [11, 12]
    assert finishes_of(items) == {0: "length"}


async def test_replayed_output_counts_for_the_format(node: Node) -> None:
    model_id = await node.loaded()
    partly = await collect(ask(node, model_id, "3", replayed_token_ids=[20, 21]))
    assert tokens_of(partly) == [22]

    wholly = await collect(ask(node, model_id, "2", replayed_token_ids=[20, 21]))

    assert wholly[0] == Admitted(0)
    assert tokens_of(wholly) == []
    assert finishes_of(wholly) == {0: "stop"}
    await wait_until_async(lambda: node.in_flight(model_id) == 0)


async def test_a_favour_that_cannot_be_done_is_told_before_all_else(node: Node) -> None:
    items = await collect(ask(node, await node.loaded(), "none", max_tokens=2))

    assert items[:2] == [NotHeld(), Admitted(0)]
    assert tokens_of(items) == [11, 12]
    assert finishes_of(items) == {0: "length"}


async def test_a_bad_format_fails_its_request_alone(node: Node) -> None:
    model_id = await node.loaded()
    other = node.submit(model_id, [50], max_tokens=4)

    with pytest.raises(InvalidRequest, match="it is bad") as caught:
        await collect(ask(node, model_id, "bad"))
    assert caught.value.param == "response_format"
    with pytest.raises(InternalError, match="panicked"):
        await collect(ask(node, model_id, "broken"))

    assert tokens_of(await collect(other)) == [51, 52, 53, 54]
    assert finishes_of(await collect(ask(node, model_id, "1"))) == {0: "stop"}
    assert node.restarts == 0


async def test_a_format_that_takes_long_holds_up_nobody_else(node: Node) -> None:
    model_id = await node.loaded()
    slow = ask(node, model_id, "slow 2")

    assert tokens_of(await collect(node.submit(model_id, [50], max_tokens=2))) == [51, 52]

    (node.library.folder(model_id) / "go").touch()
    assert tokens_of(await collect(slow)) == [11, 12]


async def test_a_request_can_be_cancelled_while_its_format_is_compiled(node: Node) -> None:
    model_id = await node.loaded()
    compiling, behind = ask(node, model_id, "slow 2", n=2), ask(node, model_id, "2")

    compiling.cancel()
    behind.cancel()

    await wait_until_async(lambda: node.in_flight(model_id) == 0)
    (node.library.folder(model_id) / "go").touch()
    assert tokens_of(await collect(ask(node, model_id, "1"))) == [11]


async def test_unloading_fails_what_is_being_compiled(node: Node) -> None:
    model_id = await node.loaded()
    folder = node.library.folder(model_id)
    compiling = ask(node, model_id, "slow 2", sampling=SamplingParams())

    await node.supervisor.unload(UnloadRequest(model_id, force=True))

    with pytest.raises((ModelNotLoaded, Exception)):
        await collect(compiling)
    (folder / "go").touch()
    await node.load(model_id)
    assert tokens_of(await collect(ask(node, model_id, "1"))) == [11]
