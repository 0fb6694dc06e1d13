"""Ranges of the prompt area never overlap, and what is freed can be taken again."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cortex_core.errors import InternalError
from cortex_core.ipc.arena import ALIGNMENT_BYTES, Arena


def test_first_fit_and_reuse() -> None:
    arena = Arena(64)
    assert [arena.allocate(16) for _ in range(5)] == [0, 16, 32, 48, None]
    arena.free(16)
    assert arena.allocate(17) is None
    assert arena.allocate(3) == 16


@pytest.mark.parametrize("order", [(0, 16, 32), (32, 16, 0), (0, 32, 16), (16, 0, 32)])
def test_neighbours_become_one_range_in_any_order(order: tuple[int, ...]) -> None:
    arena = Arena(48)
    for _ in range(3):
        arena.allocate(16)
    for offset in order:
        arena.free(offset)
    assert arena.largest_free_bytes == 48
    assert arena.allocate(48) == 0


def test_freeing_what_is_not_taken_is_an_error() -> None:
    arena = Arena(64)
    offset = arena.allocate(8)
    assert offset == 0
    arena.free(offset)
    with pytest.raises(InternalError, match="cannot free offset 0"):
        arena.free(offset)
    with pytest.raises(InternalError, match="cannot free offset 16"):
        arena.free(16)


def test_empty_requests_are_an_error() -> None:
    with pytest.raises(InternalError, match="cannot allocate 0 bytes"):
        Arena(64).allocate(0)


def test_area_below_the_alignment_has_nothing_to_give() -> None:
    arena = Arena(ALIGNMENT_BYTES - 1)
    assert arena.allocate(1) is None
    assert arena.largest_free_bytes == 0


class ArenaAgainstBytes(RuleBasedStateMachine):
    """Ranges never overlap, and a request only fails when no gap is long enough."""

    @initialize(units=st.integers(min_value=1, max_value=30))
    def begin(self, units: int) -> None:
        self.arena = Arena(units * ALIGNMENT_BYTES)
        self.owner: list[int | None] = [None] * units
        self.serial = 0

    def longest_gap(self) -> int:
        longest = current = 0
        for owner in self.owner:
            current = current + 1 if owner is None else 0
            longest = max(longest, current)
        return longest

    @rule(size_bytes=st.integers(min_value=1, max_value=10 * ALIGNMENT_BYTES))
    def allocate(self, size_bytes: int) -> None:
        units = -(-size_bytes // ALIGNMENT_BYTES)
        possible = self.longest_gap() >= units
        offset = self.arena.allocate(size_bytes)
        assert (offset is not None) == possible
        if offset is None:
            return
        first, remainder = divmod(offset, ALIGNMENT_BYTES)
        assert remainder == 0
        assert self.owner[first : first + units] == [None] * units
        self.owner[first : first + units] = [offset] * units

    @precondition(lambda self: any(owner is not None for owner in self.owner))
    @rule(data=st.data())
    def free(self, data: Any) -> None:
        taken = sorted({owner for owner in self.owner if owner is not None})
        offset = data.draw(st.sampled_from(taken))
        self.arena.free(offset)
        self.owner = [None if owner == offset else owner for owner in self.owner]

    @invariant()
    def free_bytes_agree(self) -> None:
        free = self.owner.count(None) * ALIGNMENT_BYTES
        assert self.arena.free_bytes == free
        assert self.arena.largest_free_bytes == self.longest_gap() * ALIGNMENT_BYTES


TestArenaAgainstBytes = ArenaAgainstBytes.TestCase
TestArenaAgainstBytes.settings = settings(max_examples=60, stateful_step_count=40)
