"""Makes memory of the CPU kernels ready while the device is idle, so that no step waits for it.

What each step works in, K/V of the next blocks (`neurond.engine.headroom`), and last the weights,
which steps can read from their file meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from cortex_core.logs import kv
from neurond.engine.headroom import Headroom
from neurond.host import host_memory
from neurond.kernels.abi import BLOCK_TOKENS
from neurond.kernels.populate import populate

if TYPE_CHECKING:
    from neurond.kernels.memory import Buffer, KvPages
    from neurond.kernels.packed_model import PackedModel

PIECE_BYTES: Final = 4 << 20
"""Made resident at once: 1 to 10 ms, for which a request that comes just then waits. Huge pages
divide it."""
SPARE_BYTES: Final = 1 << 30
"""Where the host, or this process's control group, has less memory free, none is taken ahead."""

COPYING_SHARE: Final = 1 / 8
"""Of the time of its steps, what a device that is never idle copies weights in: streams wait that
much longer for a while, and not for good for weights that lie in small pages."""
ASKED_AGAIN_S: Final = 1.0
"""Of steps, after which such a device asks again whether there is memory for weights."""
SCRATCH_BYTES: Final = 64 << 20
"""Of what steps work in: more of it is room for many threads, of which a step uses a part."""

_log = logging.getLogger(__name__)


class MemoryAhead:
    """The memory of one model. Called from the actor's one thread, between steps."""

    def __init__(
        self,
        model: PackedModel,
        pages: KvPages,
        scratch: Buffer,
        free_bytes: Callable[[], int] = lambda: host_memory().free_bytes,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take nothing yet; `free_bytes` is asked before each piece, `now` for what it took."""
        self._pages = pages
        block_bytes = pages.size_bytes // pages.num_blocks
        self._headroom = Headroom(pages.num_blocks, BLOCK_TOKENS, block_bytes)
        self._free_bytes = free_bytes
        self._pieces = deque(_pieces([(scratch.address, min(scratch.size_bytes, SCRATCH_BYTES))]))
        self._populates = True
        self._in_file: PackedModel | None = model
        self._now = now
        self._copying_s = 0.0
        """What may be spent on copying; below zero while more was."""

    def extend(self, frontier: int) -> bool:
        """Make one more piece ready, if one is wanted; return whether it was.

        All blocks from `frontier` on are fresh; memory of others may be made resident too, and
        keeps what it holds. Takes milliseconds. Once the kernel has refused, it is not asked for
        the same again: steps get their memory as they write to it, and read weights where they lie.
        """
        return self._populate(frontier) or self._own_weights()

    def stepped(self, took_s: float) -> None:
        """A step has ended, which took so long: some bring a piece of weights with them."""
        if self._in_file is None:
            return
        self._copying_s += took_s * COPYING_SHARE
        if self._copying_s > 0.0:
            began_s = self._now()
            owned = self._own_weights()
            # A long step pays for one piece all the same: streams wait for it.
            self._copying_s = min(0.0, self._copying_s - (self._now() - began_s))
            if not owned:
                self._copying_s -= COPYING_SHARE * ASKED_AGAIN_S

    def _populate(self, frontier: int) -> bool:
        if not self._populates:
            return False
        if not self._pieces:
            self._pieces.extend(_pieces(self._pages.places(self._headroom.take(frontier))))
        if not self._pieces:
            return False
        try:
            if self._free_bytes() < SPARE_BYTES:
                return False
            populate(*self._pieces.popleft())
        except OSError as ex:
            self._populates = False
            _log.info("memory not taken ahead of need", extra=kv(cause=ex.strerror))
        return self._populates

    def _own_weights(self) -> bool:
        model = self._in_file
        if model is None:
            return False
        try:
            if self._free_bytes() < SPARE_BYTES:
                return False
            owned = model.own_piece()
        except OSError as ex:
            owned = False
            _log.info("weights left in their file", extra=kv(path=model.path, cause=ex.strerror))
        if not owned:
            self._in_file = None
        return owned


def _pieces(places: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Cut memory, by address and size, at multiples of `PIECE_BYTES`."""
    for address, size_bytes in places:
        start, end = address, address + size_bytes
        while start < end:
            stop = min(end, start - start % PIECE_BYTES + PIECE_BYTES)
            yield start, stop - start
            start = stop
