"""Sharing of known blocks: examples, and a state machine against a model of their content."""

from __future__ import annotations

from array import array

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from neurond.engine.blocks import BlockPool, BlockTable
from neurond.engine.prefix_cache import PrefixCache

SIZE = 2


def new_cache(num_blocks: int) -> PrefixCache:
    return PrefixCache(BlockPool(num_blocks), SIZE)


def computed(cache: PrefixCache, *token_ids: int) -> BlockTable:
    """Allocate and remember the full blocks of a sequence, without looking for known ones."""
    tokens = array("i", token_ids)
    num_blocks = len(tokens) // SIZE
    table = BlockTable(SIZE, array("i", [cache.allocate() for _ in range(num_blocks)]))
    for index in range(num_blocks):
        cache.remember(table, tokens, index)
    return table


def test_a_released_beginning_is_found_again() -> None:
    cache = new_cache(4)
    table = computed(cache, 1, 2, 3, 4)
    blocks = list(table.blocks)
    cache.release(reversed(table.blocks))
    assert cache.num_available == 4
    assert list(cache.match(array("i", [1, 2, 3, 4, 5]), 2)) == blocks
    assert cache.num_available == 2


def test_a_block_is_not_found_after_another_beginning() -> None:
    cache = new_cache(4)
    table = computed(cache, 1, 2, 3, 4)
    assert not cache.match(array("i", [9, 9, 3, 4]), 2)
    assert list(cache.match(array("i", [1, 2, 9, 9]), 2)) == [table.blocks[0]]


def test_match_stops_at_the_limit() -> None:
    cache = new_cache(4)
    computed(cache, 1, 2, 3, 4)
    assert len(cache.match(array("i", [1, 2, 3, 4]), 1)) == 1


def test_the_block_idle_longest_goes_first_and_last_blocks_before_first_ones() -> None:
    cache = new_cache(4)
    old = computed(cache, 1, 2, 3, 4)
    new = computed(cache, 5, 6, 7, 8)
    cache.release(reversed(old.blocks))
    cache.release(reversed(new.blocks))
    cache.allocate()
    assert len(cache.match(array("i", [1, 2, 3, 4]), 2)) == 1
    assert len(cache.match(array("i", [5, 6, 7, 8]), 2)) == 2


def test_equal_blocks_computed_at_the_same_time_become_one() -> None:
    cache = new_cache(4)
    first = computed(cache, 1, 2, 3, 4)
    second = computed(cache, 1, 2, 3, 4)
    assert second.blocks == first.blocks
    assert cache.num_available == 2
    cache.release(reversed(first.blocks))
    assert cache.num_available == 2
    cache.release(reversed(second.blocks))
    assert cache.num_available == 4
    cache.check()


def test_adopt_puts_a_known_block_in_place_of_an_own_one() -> None:
    cache = new_cache(3)
    known = computed(cache, 1, 2)
    table = BlockTable(SIZE, array("i", [cache.allocate()]))
    assert not cache.adopt(table, array("i", [1, 9]), 0)
    assert cache.adopt(table, array("i", [1, 2]), 0)
    assert table.blocks == known.blocks
    assert cache.num_available == 2


class Holder:
    """A sequence as the cache sees it, with what it knows of its own progress."""

    def __init__(self, tokens: array[int], table: BlockTable, num_known: int) -> None:
        self.tokens = tokens
        self.table = table
        self.num_known = num_known

    def beginning(self, index: int) -> tuple[int, ...]:
        return tuple(self.tokens[: (index + 1) * SIZE])


class PrefixCacheMachine(RuleBasedStateMachine):
    """Holders come, compute and go; `written` models what lies in the memory of each block."""

    holders: Bundle[Holder] = Bundle("holders")

    def __init__(self) -> None:
        super().__init__()
        self.num_blocks = 8
        self.cache = new_cache(self.num_blocks)
        self.written: dict[int, tuple[int, ...]] = {}
        self.live: list[Holder] = []

    @rule(target=holders, tokens=st.lists(st.integers(0, 1), min_size=SIZE, max_size=9))
    def start(self, tokens: list[int]) -> Holder:
        ids = array("i", tokens)
        num_blocks = len(ids) // SIZE
        found = self.cache.match(ids, num_blocks)
        num_missing = min(num_blocks - len(found), self.cache.num_available)
        own = array("i", [self.cache.allocate() for _ in range(num_missing)])
        holder = Holder(ids, BlockTable(SIZE, found + own), len(found))
        for index, block in enumerate(found):
            assert self.written[block] == holder.beginning(index)
        self.live.append(holder)
        return holder

    @rule(holder=holders)
    def compute(self, holder: Holder) -> None:
        index = holder.num_known
        if index < len(holder.table.blocks):
            self.written[holder.table.blocks[index]] = holder.beginning(index)
            self.cache.remember(holder.table, holder.tokens, index)
            holder.num_known += 1

    @rule(holder=holders)
    def adopt(self, holder: Holder) -> None:
        index = holder.num_known
        if index < len(holder.table.blocks):
            holder.num_known += self.cache.adopt(holder.table, holder.tokens, index)

    @rule(holder=consumes(holders))
    def release(self, holder: Holder) -> None:
        self.cache.release(reversed(holder.table.blocks))
        self.live.remove(holder)

    @invariant()
    def known_blocks_hold_what_their_owners_computed(self) -> None:
        for holder in self.live:
            for index in range(holder.num_known):
                assert self.written[holder.table.blocks[index]] == holder.beginning(index)

    @invariant()
    def books_are_right(self) -> None:
        self.cache.check()
        owned = {block for holder in self.live for block in holder.table.blocks}
        assert self.cache.num_available == self.num_blocks - len(owned)
        unknown = [b for holder in self.live for b in holder.table.blocks[holder.num_known :]]
        assert len(unknown) == len(set(unknown)), "two sequences write to one block"


PrefixCacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestPrefixCacheMachine = PrefixCacheMachine.TestCase
