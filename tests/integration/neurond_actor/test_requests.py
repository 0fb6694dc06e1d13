"""Requests through a real actor process and back."""

from tests.fakes.actor_node import Node, collect, finishes_of, tokens_of


async def test_tokens_of_a_request_come_back_in_order(node: Node) -> None:
    model_id = await node.loaded()

    items = await collect(node.submit(model_id, [10, 11, 12], max_tokens=5))

    assert tokens_of(items) == [13, 14, 15, 16, 17]
    assert finishes_of(items) == {0: "length"}
