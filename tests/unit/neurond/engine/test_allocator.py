"""Blocks for sequences: examples, and a state machine that keeps what the blocks would hold."""

from __future__ import annotations

from array import array

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cortex_core.canonical import SamplingParams
from cortex_core.ids import RequestId
from neurond.engine.allocator import BlockAllocator
from neurond.engine.batch import Row
from neurond.engine.images import TokenRuns
from neurond.engine.sequence import Sequence

SIZE = 2


def sequence(allocator: BlockAllocator, *token_ids: int, two_way: TokenRuns = ()) -> Sequence:
    tokens = array("i", token_ids)
    return Sequence(
        request_id=RequestId("r"),
        row=Row(1, 0, 0, SamplingParams(), tokens, len(tokens), None, two_way=two_way),
        table=allocator.new_table(),
        stop_token_ids=frozenset(),
        max_length=100,
        arrival=1,
    )


def started(allocator: BlockAllocator, *token_ids: int, two_way: TokenRuns = ()) -> Sequence:
    seq = sequence(allocator, *token_ids, two_way=two_way)
    assert allocator.start(seq, num_spare=0)
    return seq


def test_a_start_takes_the_blocks_of_all_tokens_or_none() -> None:
    allocator = BlockAllocator(4, SIZE)
    seq = started(allocator, 1, 2, 3)
    assert (len(seq.table.blocks), allocator.num_available) == (2, 2)

    other = sequence(allocator, 4, 5, 6)
    assert not allocator.start(other, num_spare=1)
    assert (len(other.table.blocks), allocator.num_available) == (0, 2)
    assert allocator.start(other, num_spare=0)
    allocator.check([seq, other])


def test_a_refused_start_keeps_no_known_block() -> None:
    allocator = BlockAllocator(3, SIZE)
    first = started(allocator, 1, 2, 3)
    allocator.computed(first, 2)
    other = sequence(allocator, 1, 2, 4, 5, 6)
    assert not allocator.start(other, num_spare=0)
    allocator.check([first])
    allocator.free(first)
    allocator.check([])


def test_a_known_beginning_is_computed_already_but_for_the_last_token() -> None:
    allocator = BlockAllocator(8, SIZE)
    first = started(allocator, 1, 2, 3, 4, 5)
    allocator.computed(first, 4)
    allocator.free(first)
    assert allocator.num_cached == 2
    assert started(allocator, 1, 2, 3, 4, 9).num_computed == 4
    assert started(allocator, 1, 2, 3, 4).num_computed == 2


def test_a_run_that_is_seen_both_ways_is_known_whole_or_not_at_all() -> None:
    allocator = BlockAllocator(16, SIZE)
    ids = (1, 2, 3, 9, 9, 9, 9, 4, 5)
    first = started(allocator, *ids, two_way=((3, 7),))
    allocator.computed(first, 3)
    allocator.computed(first, 4)  # its last block is not full, and so not known
    second = started(allocator, *ids, two_way=((3, 7),))
    assert second.num_computed == 2
    allocator.adopt(second)
    assert second.num_computed == 2
    allocator.computed(first, 1)
    allocator.adopt(second)
    assert second.num_computed == 8
    assert second.table.blocks[:4] == first.table.blocks[:4]
    assert started(allocator, *ids, two_way=((3, 7),)).num_computed == 8
    # Another's, the run of which goes on beyond what is known.
    longer = started(allocator, *ids[:7], 9, 9, 4, two_way=((3, 9),))
    assert longer.num_computed == 2


def test_growing_takes_a_block_at_its_border_only() -> None:
    allocator = BlockAllocator(2, SIZE)
    seq = started(allocator, 1, 2)
    allocator.computed(seq, 1)
    assert allocator.grow(seq)
    assert len(seq.table.blocks) == 1
    seq.append(3)
    allocator.computed(seq, 1)
    assert allocator.grow(seq)
    assert len(seq.table.blocks) == 2
    seq.append(4)
    seq.append(5)
    allocator.computed(seq, 2)
    assert not allocator.grow(seq)


def test_what_another_computed_meanwhile_is_adopted() -> None:
    allocator = BlockAllocator(8, SIZE)
    first, second = (started(allocator, 1, 2, 3, 4, 5) for _ in range(2))
    allocator.computed(first, 4)
    allocator.adopt(second)
    assert second.num_computed == 4
    assert second.table.blocks[:2] == first.table.blocks[:2]
    allocator.check([first, second])


class Allocations(RuleBasedStateMachine):
    """K/V of a token follows from all tokens up to it: a shared block must hold just that."""

    def __init__(self) -> None:
        super().__init__()
        self.allocator = BlockAllocator(10, SIZE)
        self.running: list[Sequence] = []
        self.slots: dict[int, tuple[int, ...]] = {}

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=9), spare=st.integers(0, 3))
    def start(self, tokens: list[int], spare: int) -> None:
        seq = sequence(self.allocator, *tokens)
        before = self.allocator.num_available
        if self.allocator.start(seq, num_spare=spare):
            assert self.allocator.num_available >= spare
            assert seq.table.capacity_tokens >= len(tokens)
            self.running.append(seq)
        else:
            assert self.allocator.num_available == before
            assert not seq.table.blocks

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def compute(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(self.running))
        if not self.allocator.grow(seq):
            assert self.allocator.num_available == 0
            return
        if data.draw(st.booleans()):
            self.allocator.adopt(seq)
        room = min(len(seq.token_ids), seq.table.capacity_tokens) - seq.num_computed
        stop = seq.num_computed + data.draw(st.integers(1, room))
        for position, slot in enumerate(
            seq.table.slots(seq.num_computed, stop), start=seq.num_computed
        ):
            self.slots[slot] = tuple(seq.token_ids[: position + 1])
        self.allocator.computed(seq, stop - seq.num_computed)
        if stop == len(seq.token_ids):
            seq.append(data.draw(st.integers(0, 1)))

    @rule(
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=16),
        spare=st.integers(0, 3),
        data=st.data(),
    )
    def start_in_place_of(self, tokens: list[int], spare: int, data: st.DataObject) -> None:
        owners = self.running[data.draw(st.integers(0, len(self.running))) :]
        seq = sequence(self.allocator, *tokens)
        could = self.allocator.could_start(seq, num_spare=spare, without=owners)
        for owner in owners:
            self.allocator.free(owner)
            self.running.remove(owner)
        assert self.allocator.start(seq, num_spare=spare) == could
        self.running += [seq] if could else []

    @precondition(lambda self: self.running)
    @rule(data=st.data(), again=st.booleans())
    def free(self, data: st.DataObject, again: bool) -> None:
        seq = data.draw(st.sampled_from(self.running))
        self.allocator.free(seq)
        assert (seq.num_computed, len(seq.table.blocks)) == (0, 0)
        if not (again and self.allocator.start(seq, num_spare=0)):
            self.running.remove(seq)

    @invariant()
    def books_agree(self) -> None:
        self.allocator.check(self.running)
        assert self.allocator.num_cached <= self.allocator.num_available

    @invariant()
    def everyone_has_its_own_tokens(self) -> None:
        for seq in self.running:
            for position, slot in enumerate(seq.table.slots(0, seq.num_computed)):
                assert self.slots[slot] == tuple(seq.token_ids[: position + 1])


TestAllocations = Allocations.TestCase
