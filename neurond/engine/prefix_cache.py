"""Blocks whose content is known, to be shared by every sequence with the same beginning.

A full block is known by its own tokens and by the known block before it, so that one look-up per
block walks a chain from the start of a sequence. The look-up compares tokens, not hashes of them:
a collision cannot give a sequence somebody else's keys and values. Of images it compares the keys,
which are cryptographic hashes of their content.

A known block without owners stays, idle, until its memory is wanted; the one that has been idle
longest goes first. Whoever owns a known block owns its predecessor too, and gives both back last
block first. Hence a block never goes before its successors, and the number of a predecessor is a
safe name for it for as long as it is needed.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from neurond.engine.blocks import BlockPool, BlockTable
from neurond.engine.images import ImagePrompt, image_marks

BlockKey = tuple[int | None, bytes]
"""The known block before, None at the start of a sequence, and this block's tokens as int32, with
what tells the images in it."""


def block_key(
    before: int | None, token_ids: array[int], start: int, stop: int, images: ImagePrompt | None
) -> BlockKey:
    """Return what the block of tokens `start` up to `stop` is known by."""
    key = token_ids[start:stop].tobytes()
    return before, key if images is None else key + image_marks(images, start, stop)


class PrefixCache:
    """What is in the blocks of a pool, and the one way to get and to give back blocks."""

    def __init__(self, pool: BlockPool, block_tokens: int) -> None:
        self._pool = pool
        self._block_tokens = block_tokens
        self._known: dict[BlockKey, int] = {}
        self._keys: dict[int, BlockKey] = {}
        self._idle: dict[int, None] = {}  # insertion order is the order of giving back

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can give: free ones, then idle ones for their content."""
        return self._pool.num_free + len(self._idle)

    @property
    def num_idle(self) -> int:
        return len(self._idle)

    def allocate(self) -> int:
        """Return a block with one owner and no known content; one must be available."""
        if not self._pool.num_free:
            self._forget_oldest()
        return self._pool.take()

    def match(
        self, token_ids: array[int], max_blocks: int, images: ImagePrompt | None = None
    ) -> array[int]:
        """Own and return the known blocks that `token_ids` begins with, at most `max_blocks`."""
        found = array("i")
        parent: int | None = None
        for index in range(max_blocks):
            parent = self._known.get(self._key(parent, token_ids, index, images))
            if parent is None:
                break
            self._own(parent)
            found.append(parent)
        return found

    def adopt(
        self,
        table: BlockTable,
        token_ids: array[int],
        index: int,
        images: ImagePrompt | None = None,
        *,
        count: int = 1,
    ) -> bool:
        """Put known blocks in the place of `count` blocks of `table` from `index` on, if there are
        that many.

        All blocks before them must be known, and they must not be.
        """
        found: list[int] = []
        parent = _before(table, index)
        for place in range(index, index + count):
            parent = self._known.get(self._key(parent, token_ids, place, images))
            if parent is None:
                return False
            found.append(parent)
        for place, block in enumerate(found, start=index):
            self._own(block)
            self.release((table.blocks[place],))
            table.blocks[place] = block
        return True

    def remember(
        self,
        table: BlockTable,
        token_ids: array[int],
        index: int,
        images: ImagePrompt | None = None,
    ) -> None:
        """Make block `index` of `table`, whose K/V are all computed, known.

        All blocks before it must be known. If an equal one is known already, the table gets that
        one in its place, so that sequences that began at the same time share memory from then on.
        """
        if self.adopt(table, token_ids, index, images):
            return
        key = self._key(_before(table, index), token_ids, index, images)
        block = table.blocks[index]
        self._known[key] = block
        self._keys[block] = key

    def release(self, blocks: Iterable[int]) -> None:
        """Give blocks back, each once; those of one sequence last block first."""
        for block in blocks:
            if not self._pool.drop(block):
                continue
            if block in self._keys:
                self._idle[block] = None
            else:
                self._pool.put_back(block)

    def check(self) -> None:
        """Assert what the module docstring promises."""
        self._pool.check(set(self._idle))
        assert len(self._known) == len(self._keys), "a known block has two contents"
        order = {block: place for place, block in enumerate(self._idle)}
        for key, block in self._known.items():
            assert self._keys[block] == key, f"block {block} is known by another name"
            assert (block in order) == (self._pool.owners(block) == 0), f"block {block} is lost"
            parent = key[0]
            if parent is None:
                continue
            assert parent in self._keys, f"block {block} has outlived its predecessor"
            if parent in order:
                assert block in order, f"block {block} is owned without its predecessor"
                assert order[block] < order[parent], f"block {parent} goes before its successor"

    def _key(
        self, parent: int | None, token_ids: array[int], index: int, images: ImagePrompt | None
    ) -> BlockKey:
        start = index * self._block_tokens
        return block_key(parent, token_ids, start, start + self._block_tokens, images)

    def _own(self, block: int) -> None:
        self._pool.share(block)
        self._idle.pop(block, None)

    def _forget_oldest(self) -> None:
        block = next(iter(self._idle))
        del self._idle[block]
        del self._known[self._keys.pop(block)]
        self._pool.put_back(block)


def _before(table: BlockTable, index: int) -> int | None:
    return table.blocks[index - 1] if index else None
