"""Owner counts of blocks and the slots of a table."""

from array import array

import pytest

from neurond.engine.blocks import BlockPool, BlockTable, blocks_for


def test_a_block_is_free_again_only_after_its_last_owner() -> None:
    pool = BlockPool(2)
    block = pool.take()
    pool.share(block)
    assert not pool.drop(block)
    assert pool.drop(block)
    pool.put_back(block)
    assert pool.num_free == 2
    pool.check(kept=set())


def test_a_pool_gives_each_block_once() -> None:
    pool = BlockPool(5)
    assert sorted(pool.take() for _ in range(5)) == [0, 1, 2, 3, 4]
    assert pool.num_free == 0


def test_all_blocks_from_the_frontier_on_are_fresh() -> None:
    pool = BlockPool(5)
    assert pool.frontier == 0
    first, second = pool.take(), pool.take()
    assert pool.frontier == 2
    for block in (second, first):
        pool.drop(block)
        pool.put_back(block)
    taken = [pool.take(), pool.take()]
    assert (sorted(taken), pool.frontier) == ([0, 1], 2)
    assert [pool.take(), pool.frontier] == [2, 3]


def test_check_finds_a_block_that_nobody_has() -> None:
    pool = BlockPool(1)
    pool.drop(pool.take())
    with pytest.raises(AssertionError, match="0 places"):
        pool.check(kept=set())


def test_slots_follow_the_table_across_blocks() -> None:
    table = BlockTable(4, array("i", [7, 2, 5]))
    assert list(table.slots(2, 9)) == [30, 31, 8, 9, 10, 11, 20]
    assert list(table.slots(5, 6)) == [9]
    assert table.capacity_tokens == 12


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2)])
def test_blocks_for_rounds_up(tokens: int, blocks: int) -> None:
    assert blocks_for(tokens, 16) == blocks
