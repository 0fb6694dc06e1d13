"""Pages of K/V that are made resident, in real memory, and weights that are copied behind them."""

import errno
import mmap
import os

import pytest

from neurond.engine import memory_ahead
from neurond.engine.headroom import HEADROOM_TOKENS
from neurond.engine.memory_ahead import COPYING_SHARE, PIECE_BYTES, SPARE_BYTES, MemoryAhead
from neurond.kernels.abi import BLOCK_TOKENS
from neurond.kernels.memory import Buffer, KvPages
from tests.fakes.resident_memory import resident_bytes, resident_pages, skip_where_nothing_populates

BLOCK_BYTES = 8 << 10
"""Of each layer."""
NUM_BLOCKS = 3000
LAYERS = 2
AHEAD = HEADROOM_TOKENS // BLOCK_TOKENS
"""Blocks: the headroom."""
HUGE_PAGE = 2 << 20
SCRATCH_BYTES = 5 << 20


@pytest.fixture(autouse=True)
def _populating() -> None:
    skip_where_nothing_populates()


class Weights:
    """A model with so many pieces of weights in its file; a host that refuses gives none."""

    path = None

    def __init__(self, num_pieces: int) -> None:
        self.num_pieces = num_pieces
        self.refuses = False
        self.piece_s = 0.0
        self.spent_s = 0.0

    def own_piece(self) -> bool:
        if self.refuses:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        self.num_pieces -= 1
        self.spent_s += self.piece_s
        return self.num_pieces >= 0


class Memory:
    """What a runner has, in a process with so much free memory."""

    def __init__(self, num_blocks: int = NUM_BLOCKS, num_pieces: int = 0) -> None:
        self.weights = Weights(num_pieces)
        self.pages = KvPages([BLOCK_BYTES * num_blocks] * LAYERS, num_blocks, "bf16")
        self.scratch = Buffer(SCRATCH_BYTES)
        self.free_bytes = SPARE_BYTES
        self.ahead = MemoryAhead(
            self.weights,
            self.pages,
            self.scratch,
            lambda: self.free_bytes,
            lambda: self.weights.spent_s,
        )

    def extend_fully(self, frontier: int) -> int:
        """Make everything resident that is wanted; return in how many pieces."""
        pieces = 0
        while self.ahead.extend(frontier):
            pieces += 1
        return pieces

    def resident_bytes(self) -> int:
        return sum(map(resident_bytes, (*self.pages.layers, self.scratch)))

    def all_resident(self, blocks: range) -> bool:
        size = BLOCK_BYTES * len(blocks)
        at = [layer.address + BLOCK_BYTES * blocks.start for layer in self.pages.layers]
        return all(all(resident_pages(address, size)) for address in at)


def test_scratch_and_the_next_blocks_become_resident_in_pieces() -> None:
    memory = Memory()
    before = memory.resident_bytes()
    assert before == 0

    while memory.ahead.extend(0):
        now = memory.resident_bytes()
        assert now - before <= PIECE_BYTES
        before = now

    assert resident_bytes(memory.scratch) == SCRATCH_BYTES
    assert memory.all_resident(range(AHEAD))
    most = SCRATCH_BYTES + LAYERS * (AHEAD * BLOCK_BYTES + 2 * HUGE_PAGE)
    assert memory.resident_bytes() <= most


def test_blocks_are_made_resident_as_others_are_used_which_keep_what_they_hold() -> None:
    memory = Memory()
    memory.extend_fully(0)
    for layer in memory.pages.layers:
        layer.bytes[: 300 * BLOCK_BYTES] = 9

    memory.extend_fully(300)

    assert memory.all_resident(range(300 + AHEAD))
    for layer in memory.pages.layers:
        assert (layer.bytes[: 300 * BLOCK_BYTES] == 9).all()
        assert not layer.bytes[300 * BLOCK_BYTES :].any()


def test_the_end_of_the_pool_is_respected() -> None:
    memory = Memory(num_blocks=100)

    assert memory.extend_fully(0)

    assert memory.all_resident(range(100))
    assert memory.extend_fully(100) == 0


def test_nothing_is_taken_from_a_host_that_has_little() -> None:
    memory = Memory()
    memory.free_bytes = SPARE_BYTES - 1
    assert not memory.ahead.extend(0)
    assert memory.resident_bytes() == 0

    memory.free_bytes = SPARE_BYTES

    assert memory.extend_fully(0)
    assert memory.all_resident(range(AHEAD))


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOMEM])
def test_a_kernel_that_refuses_is_not_asked_again(monkeypatch, error: int) -> None:
    asked = []

    def refuse(address: int, size_bytes: int) -> None:
        asked.append((address, size_bytes))
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(memory_ahead, "populate", refuse)
    memory = Memory()

    assert not memory.ahead.extend(0)
    assert not memory.ahead.extend(0)

    assert len(asked) == 1


def test_a_host_that_does_not_tell_is_left_alone() -> None:
    memory = Memory()

    def fail() -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    assert not MemoryAhead(Weights(1), memory.pages, memory.scratch, fail).extend(0)
    assert memory.resident_bytes() == 0


def test_weights_are_copied_behind_what_steps_would_wait_for() -> None:
    memory = Memory(num_pieces=3)

    while memory.weights.num_pieces == 3:
        assert memory.ahead.extend(0)

    assert resident_bytes(memory.scratch) == SCRATCH_BYTES
    assert memory.all_resident(range(AHEAD))
    assert memory.extend_fully(0) == 2


@pytest.mark.parametrize("piece_s", [0.002, 0.05])
def test_a_device_without_a_pause_copies_weights_in_a_share_of_its_time(piece_s: float) -> None:
    memory = Memory(num_pieces=1000)
    memory.weights.piece_s = piece_s
    steps_s = 0.0
    for _ in range(200):
        memory.ahead.stepped(0.010)
        steps_s += 0.010
        assert memory.weights.spent_s <= steps_s * COPYING_SHARE + piece_s

    assert memory.weights.spent_s >= steps_s * COPYING_SHARE - piece_s
    assert memory.resident_bytes() == 0


def test_a_long_step_brings_one_piece_with_it() -> None:
    memory = Memory(num_pieces=10)

    memory.ahead.stepped(60.0)

    assert memory.weights.num_pieces == 9


def test_a_device_without_a_pause_asks_for_memory_that_is_short_now_and_then() -> None:
    memory = Memory(num_pieces=1000)
    asked = 0

    def short() -> int:
        nonlocal asked
        asked += 1
        return memory.free_bytes

    ahead = MemoryAhead(memory.weights, memory.pages, memory.scratch, short, lambda: 0.0)
    memory.free_bytes = SPARE_BYTES - 1
    for _ in range(100):
        ahead.stepped(0.1)
    assert asked == pytest.approx(10, abs=2)

    memory.free_bytes = SPARE_BYTES
    for _ in range(20):
        ahead.stepped(0.1)

    assert memory.weights.num_pieces < 1000


def test_weights_stay_where_they_are_while_there_is_no_memory_for_them(monkeypatch) -> None:
    monkeypatch.setattr(memory_ahead, "populate", lambda *_: None)
    memory = Memory(num_pieces=2)
    memory.free_bytes = SPARE_BYTES - 1
    assert not memory.ahead.extend(0)
    memory.free_bytes = SPARE_BYTES
    memory.weights.refuses = True
    memory.extend_fully(0)

    memory.weights.refuses = False

    assert not memory.ahead.extend(0)  # the kernel is not asked again
    assert memory.weights.num_pieces == 2


def test_a_kernel_that_does_not_populate_still_gives_memory_for_weights(monkeypatch) -> None:
    def refuse(_address: int, _size_bytes: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(memory_ahead, "populate", refuse)
    memory = Memory(num_pieces=2)

    assert memory.extend_fully(0) == 2


def test_places_are_those_of_a_block_in_each_layer() -> None:
    pages = KvPages([mmap.PAGESIZE * 10, 10], 10, "bf16")
    first, second = pages.layers
    assert pages.places(range(3, 5)) == [
        (first.address + 3 * mmap.PAGESIZE, 2 * mmap.PAGESIZE),
        (second.address + 3, 2),
    ]
