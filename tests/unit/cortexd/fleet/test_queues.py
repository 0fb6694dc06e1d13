"""Waiters by model, with a bound, in turn."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import QueueFull
from cortex_core.ids import ModelId, RequestId
from cortexd.fleet.decisions import RouteRequest
from cortexd.fleet.queues import Queues, Ticket

A, B = ModelId("file:a"), ModelId("file:b")


def ticket(name: str, origin: bytes = b"w") -> Ticket:
    return Ticket(origin, RequestId(name))


def add(
    queues: Queues,
    name: str,
    model: ModelId = A,
    *,
    priority: int = 0,
    principal: str | None = None,
    bound: int = 9,
) -> None:
    queues.add(
        ticket(name),
        RouteRequest(model),
        priority=priority,
        principal=principal,
        now=1.0,
        max_wait_s=5.0,
        bound=bound,
    )


def order(queues: Queues, model: ModelId = A) -> list[str]:
    return [waiter.ticket.request_id for waiter in queues.waiting(model)]


def test_first_come_first_served_within_a_priority() -> None:
    queues = Queues()
    for name, priority in (("a", 0), ("b", 1), ("c", 0), ("d", 1)):
        add(queues, name, priority=priority)
    assert order(queues) == ["b", "d", "a", "c"]


def served(queues: Queues, number: int) -> list[str]:
    """Serve so many, each time the first; return them."""
    names = []
    for _ in range(number):
        names += order(queues)[:1]
        queues.remove(ticket(names[-1]), served=True)
    return names


def test_principals_take_turns_within_a_priority() -> None:
    queues = Queues()
    for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
        add(queues, name, principal=name[0])
    add(queues, "a4", principal="a", priority=1)
    assert order(queues) == ["a4", "a1", "b1", "c1", "a2", "b2", "a3"]
    assert served(queues, 7) == ["a4", "a1", "b1", "c1", "a2", "b2", "a3"]


def test_who_had_a_turn_waits_for_the_others_also_with_what_it_sends_next() -> None:
    queues = Queues()
    for name in ("a1", "a2", "a3", "b1", "b2"):
        add(queues, name, principal=name[0])
    assert served(queues, 1) == ["a1"]
    assert served(queues, 1) == ["b1"]
    # It has nothing waiting for a moment, and is not the first in the next round for that.
    add(queues, "c1", principal="c")
    assert served(queues, 3) == ["a2", "b2", "c1"]
    add(queues, "b3", principal="b")
    add(queues, "d1", principal="d")
    assert served(queues, 3) == ["a3", "b3", "d1"]


def test_who_waits_is_served_however_many_come_anew() -> None:
    queues = Queues()
    for name in ("a1", "a2", "a3"):
        add(queues, name, principal="a")
    got = []
    for number in range(6):
        add(queues, f"n{number}", principal=f"n{number}")
        got += served(queues, 1)
    assert [name for name in got if name.startswith("a")] == ["a1", "a2", "a3"]


def test_who_left_without_being_served_costs_its_principal_no_turn() -> None:
    queues = Queues()
    for name in ("a1", "a2", "b1", "b2"):
        add(queues, name, principal=name[0])
    queues.remove(ticket("a1"))
    assert order(queues) == ["a2", "b1", "b2"]


@given(
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40),
)
def test_nobody_has_three_turns_while_another_waits(steps: list[tuple[str, bool]]) -> None:
    """Each step adds a request of a principal, or serves one."""
    queues = Queues()
    since: dict[str, Counter[str]] = {}  # turns of others since it waits
    for number, (principal, adds) in enumerate(steps):
        if adds:
            add(queues, f"{principal}{number}", principal=principal, bound=99)
            since.setdefault(principal, Counter())
        elif order(queues):
            (name,) = served(queues, 1)
            since.pop(name[0])
            for turns in since.values():
                turns[name[0]] += 1
                assert max(turns.values()) <= 2
            if any(waiting.startswith(name[0]) for waiting in order(queues)):
                since[name[0]] = Counter()


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
    queues.add(other, RouteRequest(B), priority=0, principal=None, now=0.0, max_wait_s=1.0, bound=1)
    assert [waiter.ticket for waiter in queues.of_origin(b"v")] == [other]
