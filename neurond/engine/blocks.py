"""Blocks of K/V memory by number: who owns which, and which are free.

A block holds the keys and values of `block_tokens` consecutive tokens, in every layer. The pool
counts owners; the prefix cache (`neurond.engine.prefix_cache`) decides what becomes of a block
that has none. Pure bookkeeping: nothing here touches the memory itself.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field


class BlockPool:
    """Owner counts and the free list of a fixed number of blocks.

    A block is free, or it has owners, or it has none and is kept by the prefix cache.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._owners = [0] * num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self.frontier = 0
        """The first of the blocks that nobody was given yet: all from it on."""

    @property
    def num_free(self) -> int:
        return len(self._free)

    def owners(self, block: int) -> int:
        """Return how many sequences own `block`."""
        return self._owners[block]

    def take(self) -> int:
        """Give a free block its first owner. At least one must be free."""
        block = self._free.pop()
        self._owners[block] = 1
        # What was put back lies upon what was never taken, of which the lowest comes first.
        self.frontier = max(self.frontier, block + 1)
        return block

    def share(self, block: int) -> None:
        """Add an owner to a block that is not free."""
        self._owners[block] += 1

    def drop(self, block: int) -> bool:
        """Take one owner away; true if it was the last, and the block is the caller's to place."""
        self._owners[block] -= 1
        return self._owners[block] == 0

    def put_back(self, block: int) -> None:
        """Make a block without owners free."""
        self._free.append(block)

    def check(self, kept: set[int]) -> None:
        """Assert that each block is exactly one of: owned, `kept` without an owner, free."""
        free = set(self._free)
        assert len(free) == len(self._free), "a block is in the free list twice"
        assert not free & kept, "a free block is kept"
        for block, owners in enumerate(self._owners):
            assert owners >= 0, f"block {block} was dropped more often than owned"
            places = (owners > 0) + (block in kept) + (block in free)
            assert places == 1, f"block {block} has {owners} owners and {places} places"


@dataclass(slots=True, eq=False)
class BlockTable:
    """The blocks of one sequence in the order of its tokens."""

    block_tokens: int
    blocks: array[int] = field(default_factory=lambda: array("i"))
    """int32; the runner reads this very object."""

    @property
    def capacity_tokens(self) -> int:
        return len(self.blocks) * self.block_tokens

    def slots(self, start: int, stop: int) -> array[int]:
        """Return where the K/V of tokens `start` up to `stop` lie."""
        size = self.block_tokens
        slots = array("i")
        position = start
        while position < stop:
            index, offset = divmod(position, size)
            end = min(stop, (index + 1) * size)
            first = self.blocks[index] * size + offset
            slots.extend(range(first, first + end - position))
            position = end
        return slots


def blocks_for(num_tokens: int, block_tokens: int) -> int:
    """Return how many blocks hold the K/V of `num_tokens` tokens."""
    return -(-num_tokens // block_tokens)
