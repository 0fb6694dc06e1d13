"""How many blocks of K/V memory are kept resident ahead of those that sequences were given.

Blocks are handed out in ascending order before any is handed out again, so those that were never
written to lie behind a frontier. A step that is the first to write to a page waits for the kernel
to clear it, which for a long prompt takes a good part of its time.
"""

from __future__ import annotations

from typing import Final

HEADROOM_TOKENS: Final = 16_384
"""Kept resident behind the frontier: a coding agent's prompt, or several long ones that come
before the device idles again."""
HEADROOM_BYTES: Final = 512 << 20
"""What these take in all layers at most: by so much a model is larger than what it has used."""
_STRIDES: Final = 8
"""The headroom is filled up once so many parts of it have one missing: less is not worth going
through all layers."""


class Headroom:
    """Which blocks of one model to make resident next. Nothing here touches memory."""

    def __init__(self, num_blocks: int, block_tokens: int, block_bytes: int) -> None:
        """`block_bytes` is what a block takes in all layers."""
        wanted = min(HEADROOM_TOKENS // block_tokens, HEADROOM_BYTES // block_bytes)
        self._num_blocks = num_blocks
        self.size_blocks = min(wanted, num_blocks)
        # Blocks from 0 on. Those before the frontier count, too: steps write to what is given out,
        # but for what a prompt has that ends before it is computed; that is not looked for.
        self._resident = 0

    def take(self, frontier: int) -> range:
        """Return the blocks to make resident now, and count them as such; none if it is enough.

        All blocks from `frontier` on are fresh. It goes back to 0 with a new engine, and what was
        resident is so still.
        """
        first = max(self._resident, frontier)
        stop = min(frontier + self.size_blocks, self._num_blocks)
        missing = stop - first
        if missing <= 0 or (stop < self._num_blocks and missing * _STRIDES < self.size_blocks):
            return range(0)
        self._resident = stop
        return range(first, stop)
