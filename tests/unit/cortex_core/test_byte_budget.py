"""A budget is kept, is given out in order, and comes back whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.byte_budget import ByteBudget, Share
from cortex_core.errors import QueueFull


def test_who_comes_later_waits_and_a_small_one_does_not_pass() -> None:
    granted: list[str] = []
    budget = ByteBudget(100, max_waiting=2)
    first = budget.ask(60, lambda: granted.append("first"))
    large = budget.ask(50, lambda: granted.append("large"))
    small = budget.ask(10, lambda: granted.append("small"))
    assert (granted, budget.held_bytes) == (["first"], 60)
    budget.give_back(first)
    assert (granted, budget.held_bytes) == (["first", "large", "small"], 60)
    for share in (large, small, small, first):
        budget.give_back(share)
    assert budget.held_bytes == 0


def test_one_alone_may_be_larger_than_all_there_is() -> None:
    budget = ByteBudget(100, max_waiting=2)
    share = budget.ask(500, lambda: None)
    other = budget.ask(1, lambda: None)
    assert (share.granted, other.granted) == (True, False)
    budget.give_back(share)
    assert other.granted


def test_a_full_queue_refuses() -> None:
    budget = ByteBudget(1 << 20, max_waiting=1)
    held = budget.ask(1 << 20, lambda: None)
    waiting = budget.ask(1, lambda: None)
    with pytest.raises(QueueFull, match=r"cannot take 2\.0 MiB: others have 1\.0") as caught:
        budget.ask(2 << 20, lambda: None)
    assert caught.value.retry_after_s
    budget.give_back(waiting)  # who leaves makes room for another
    assert not budget.ask(1, lambda: None).granted
    assert held.granted


@given(st.lists(st.tuples(st.integers(1, 80), st.integers(0, 5)), max_size=40))
def test_books_are_right_whoever_leaves(events: list[tuple[int, int]]) -> None:
    budget = ByteBudget(100, max_waiting=8)
    shares: list[Share] = []
    told: list[int] = []
    for size, leaving in events:
        try:
            shares.append(budget.ask(size, lambda size=size: told.append(size)))
        except QueueFull:
            assert sum(not share.granted for share in shares) == 8
        if leaving < len(shares):
            budget.give_back(shares.pop(leaving))
        granted = [share for share in shares if share.granted]
        assert budget.held_bytes == sum(share.size_bytes for share in granted) <= 100
        waiting = [share.granted for share in shares]
        assert waiting == sorted(waiting, reverse=True), "somebody was passed"
    for share in shares:
        budget.give_back(share)
    assert budget.held_bytes == 0
    whole = budget.ask(100, lambda: None)
    waiting_again = [budget.ask(1, lambda: None) for _ in range(8)]
    assert whole.granted
    assert not any(share.granted for share in waiting_again)
