"""Which blocks are made resident ahead of need."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from neurond.engine.headroom import HEADROOM_BYTES, HEADROOM_TOKENS, Headroom

BLOCK_TOKENS = 16
SMALL, LARGE = 1 << 10, 16 << 20
MANY = 100_000


def headroom(num_blocks: int = MANY, block_bytes: int = SMALL) -> Headroom:
    return Headroom(num_blocks, BLOCK_TOKENS, block_bytes)


def test_it_is_so_many_tokens() -> None:
    assert headroom().take(0) == range(HEADROOM_TOKENS // BLOCK_TOKENS)


def test_it_is_no_more_than_so_many_bytes() -> None:
    assert headroom(block_bytes=LARGE).take(0) == range(HEADROOM_BYTES // LARGE)
    assert not headroom(block_bytes=HEADROOM_BYTES + 1).take(0)


def test_it_is_no_more_than_the_pool() -> None:
    small = headroom(num_blocks=100)
    assert small.take(0) == range(100)
    assert not small.take(100)


def test_what_is_resident_is_not_taken_again_not_even_for_a_new_engine() -> None:
    ahead = headroom()
    assert ahead.take(0)
    assert not ahead.take(0)
    assert ahead.take(200).start == ahead.size_blocks
    assert not ahead.take(0)


def test_blocks_that_were_used_beyond_it_are_left_to_who_used_them() -> None:
    ahead = headroom()
    ahead.take(0)
    used = 3 * ahead.size_blocks
    assert ahead.take(used) == range(used, used + ahead.size_blocks)


def test_little_is_not_worth_it_but_at_the_end_of_the_pool() -> None:
    ahead = headroom()
    end = ahead.take(0).stop
    assert not ahead.take(1)
    whole = headroom(num_blocks=end + 1)
    whole.take(0)
    assert whole.take(1) == range(end, end + 1)


@given(
    num_blocks=st.integers(1, 3000),
    block_bytes=st.sampled_from([SMALL, LARGE]),
    frontiers=st.lists(st.integers(0, 3000)),
)
def test_there_is_always_most_of_it_and_never_more(num_blocks, block_bytes, frontiers) -> None:
    ahead = headroom(num_blocks, block_bytes)
    taken = []
    resident = 0
    for wanted in sorted(frontiers):
        frontier = min(wanted, num_blocks)
        blocks = ahead.take(frontier)
        taken.append(blocks)
        resident = max(resident, frontier, blocks.stop)
        assert resident <= min(num_blocks, frontier + ahead.size_blocks)
        assert resident >= min(num_blocks, frontier + ahead.size_blocks * 7 // 8)
    some = [blocks for blocks in taken if blocks]
    assert all(one.stop <= next_one.start for one, next_one in pairwise(some))
