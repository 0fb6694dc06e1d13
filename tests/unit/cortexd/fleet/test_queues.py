"""Waiters by model, with a bound, in turn."""

import pytest

from cortex_core.errors import QueueFull
from cortex_core.ids import ModelId, RequestId
from cortexd.fleet.decisions import RouteRequest
from cortexd.fleet.queues import Queues, Ticket

A, B = ModelId("file:a"), ModelId("file:b")


def ticket(name: str, origin: bytes = b"w") -> Ticket:
    return Ticket(origin, RequestId(name))


def add(
    queues: Queues, name: str, model: ModelId = A, *, priority: int = 0, bound: int = 9
) -> None:
    queues.add(
        ticket(name), RouteRequest(model), priority=priority, now=1.0, max_wait_s=5.0, bound=bound
    )


def order(queues: Queues, model: ModelId = A) -> list[str]:
    return [waiter.ticket.request_id for waiter in queues.waiting(model)]


def test_first_come_first_served_within_a_priority() -> None:
    queues = Queues()
    for name, priority in (("a", 0), ("b", 1), ("c", 0), ("d", 1)):
        add(queues, name, priority=priority)
    assert order(queues) == ["b", "d", "a", "c"]


def test_the_bound_is_per_model() -> None:
    queues = Queues()
    add(queues, "a", bound=1)
    add(queues, "b", B, bound=1)
    with pytest.raises(QueueFull) as refused:
        add(queues, "c", bound=1)
    assert refused.value.retry_after_s
    assert (len(queues), queues.depth(A)) == (2, 1)


def test_removing_is_idempotent_and_frees_the_place() -> None:
    queues = Queues()
    add(queues, "a", bound=1)
    assert queues.remove(ticket("a")) is not None
    assert queues.remove(ticket("a")) is None
    add(queues, "b", bound=1)
    assert (queues.models(), order(queues)) == ([A], ["b"])


def test_the_model_waited_for_longest_comes_first() -> None:
    queues = Queues()
    add(queues, "b", B)
    add(queues, "a", A, priority=9)
    assert queues.models() == [B, A]


def test_waiters_of_one_connection_are_found() -> None:
    queues = Queues()
    add(queues, "a")
    other = Ticket(b"v", RequestId("a"))
    queues.add(other, RouteRequest(B), priority=0, now=0.0, max_wait_s=1.0, bound=1)
    assert [waiter.ticket for waiter in queues.of_origin(b"v")] == [other]
