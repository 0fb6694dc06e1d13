"""Gives sequences the blocks they need, by way of the prefix cache.

It knows what a sequence holds, not who deserves it: when there is nothing to give it says so, and
the scheduler decides whose blocks to take.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection

from neurond.engine.blocks import BlockPool, BlockTable, blocks_for
from neurond.engine.prefix_cache import PrefixCache
from neurond.engine.sequence import Sequence


class BlockAllocator:
    """The blocks of one engine, and the only writer of tables and of what is computed in them."""

    def __init__(self, num_blocks: int, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._pool = BlockPool(num_blocks)
        self._cache = PrefixCache(self._pool, block_tokens)

    @property
    def num_available(self) -> int:
        """Blocks that no sequence owns; idle ones of the prefix cache included."""
        return self._cache.num_available

    @property
    def num_cached(self) -> int:
        """Blocks that no sequence owns and that the prefix cache has kept."""
        return self._cache.num_idle

    @property
    def frontier(self) -> int:
        """See `BlockPool.frontier`."""
        return self._pool.frontier

    def new_table(self) -> BlockTable:
        """Return an empty table for a new sequence."""
        return BlockTable(self._block_tokens)

    def num_missing(self, seq: Sequence) -> int:
        """Return how many tokens of a sequence without blocks are not in the prefix cache."""
        known = self._match(seq)
        self._cache.release(reversed(known))
        return len(seq.token_ids) - len(known) * self._block_tokens

    def start(self, seq: Sequence, *, num_spare: int) -> bool:
        """Give a sequence without blocks those of all its tokens, known ones as far as they go.

        False, and nothing is given, if fewer than `num_spare` blocks would be left.
        """
        num_tokens = len(seq.token_ids)
        known = self._match(seq)
        num_missing = blocks_for(num_tokens, self._block_tokens) - len(known)
        if self._cache.num_available < num_missing + num_spare:
            self._cache.release(reversed(known))
            return False
        blocks = seq.table.blocks
        blocks.extend(known)
        blocks.extend([self._cache.allocate() for _ in range(num_missing)])
        seq.num_known_blocks = len(known)
        seq.skip(len(known) * self._block_tokens)
        return True

    def could_start(self, seq: Sequence, *, num_spare: int, without: Collection[Sequence]) -> bool:
        """Tell whether `start` would give a sequence blocks if those `without` blocks had none."""
        owned: Counter[int] = Counter()
        for owner in without:
            owned.update(owner.table.blocks)
        known = self._match(seq)
        # Of known blocks it is an owner itself by now, so that they do not count twice.
        freed = sum(self._pool.owners(block) == num_owned for block, num_owned in owned.items())
        num_missing = blocks_for(len(seq.token_ids), self._block_tokens) - len(known)
        could = self._cache.num_available + freed >= num_missing + num_spare
        self._cache.release(reversed(known))
        return could

    def grow(self, seq: Sequence) -> bool:
        """See to a block for the next token to compute; false if none is available."""
        if seq.num_computed < seq.table.capacity_tokens:
            return True
        if not self._cache.num_available:
            return False
        seq.table.blocks.append(self._cache.allocate())
        return True

    def grow_for_drafts(self, seq: Sequence, num_tokens: int, *, num_spare: int) -> int:
        """See to blocks for `num_tokens` behind the next token, as long as more than `num_spare`
        are available; return for how many there is room.
        """
        needed = seq.num_computed + 1 + num_tokens
        while seq.table.capacity_tokens < needed and self._cache.num_available > num_spare:
            seq.table.blocks.append(self._cache.allocate())
        return min(num_tokens, seq.table.capacity_tokens - seq.num_computed - 1)

    def adopt(self, seq: Sequence) -> None:
        """Skip what another sequence with the same beginning has computed since this one began."""
        size = self._block_tokens
        while seq.num_computed == seq.num_known_blocks * size:
            stop = seq.num_computed + size
            while seq.cut(stop) < stop:
                stop += size
            count = stop // size - seq.num_known_blocks
            if stop > seq.num_skippable or not self._cache.adopt(
                seq.table, seq.token_ids, seq.num_known_blocks, seq.row.images, count=count
            ):
                return
            seq.num_known_blocks += count
            seq.skip(stop)

    def computed(self, seq: Sequence, num_tokens: int) -> None:
        """Record that the next `num_tokens` tokens have K/V; blocks they fill become known."""
        seq.num_computed += num_tokens
        num_full = seq.num_computed // self._block_tokens
        while seq.num_known_blocks < num_full:
            self._cache.remember(seq.table, seq.token_ids, seq.num_known_blocks, seq.row.images)
            seq.num_known_blocks += 1

    def free(self, seq: Sequence) -> None:
        """Take all blocks of a sequence, and with them what it has computed."""
        self._cache.release(reversed(seq.table.blocks))
        del seq.table.blocks[:]
        seq.num_reached = max(seq.num_reached, seq.num_computed)
        seq.num_computed = seq.num_known_blocks = 0

    def _match(self, seq: Sequence) -> array[int]:
        """Own and return the known blocks that a sequence can begin with."""
        size = self._block_tokens
        # The last token is always computed, for its logits, and no shared block is written to.
        known = self._cache.match(seq.token_ids, seq.num_skippable // size, seq.row.images)
        while (end := seq.cut(len(known) * size)) < len(known) * size:
            self._cache.release(reversed(known[end // size :]))
            del known[end // size :]
        return known

    def check(self, owners: Collection[Sequence]) -> None:
        """Assert that `owners` own every owned block, as often as it is owned."""
        self._cache.check()
        owned: Counter[int] = Counter()
        for seq in owners:
            owned.update(seq.table.blocks)
            assert seq.num_known_blocks * self._block_tokens <= seq.num_computed
            assert seq.num_computed <= seq.table.capacity_tokens
            assert seq.num_computed < len(seq.token_ids)
            assert seq.cut(seq.num_computed) == seq.num_computed, "a run of tokens is cut"
        for block in range(self._pool.num_blocks):
            assert self._pool.owners(block) == owned[block], f"block {block} has a ghost owner"
