"""A file's bytes in memory: what is read, where it lies, and what becomes of the file."""

import errno
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from neurond.kernels import file_memory, populate
from neurond.kernels.file_memory import (
    HUGE_PAGE_BYTES,
    PIECE_BYTES,
    FileMemory,
    borrowed_bytes,
)

SIZE_BYTES = 2 * PIECE_BYTES + 12345
"""Two whole pieces and one that ends within a page."""


@pytest.fixture
def content() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, SIZE_BYTES, np.uint8)


@pytest.fixture
def path(tmp_path: Path, content: np.ndarray) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(content.tobytes())
    return path


def mappings_of(path: Path) -> int:
    """Return how often a file is mapped into this process."""
    return Path("/proc/self/maps").read_text().count(str(path))


def test_bytes_stay_where_they_are_and_what_they_are(path: Path, content: np.ndarray) -> None:
    memory = FileMemory(path)
    seen = memory.bytes
    assert seen.ctypes.data % HUGE_PAGE_BYTES == 0
    assert np.array_equal(seen, content)

    sizes = []
    while memory.own_piece():
        sizes.append(memory.num_owned_bytes)
        assert np.array_equal(seen, content)

    assert sizes == [PIECE_BYTES, 2 * PIECE_BYTES, SIZE_BYTES]
    assert not memory.own_piece()


def test_what_is_copied_does_not_change_with_the_file(path: Path, content: np.ndarray) -> None:
    memory = FileMemory(path)
    while memory.own_piece():
        pass
    assert mappings_of(path) == 0

    os.truncate(path, 0)

    assert np.array_equal(memory.bytes, content)


def test_a_file_may_be_removed_before_it_is_copied(path: Path, content: np.ndarray) -> None:
    memory = FileMemory(path)
    path.unlink()

    assert memory.own_piece()

    assert np.array_equal(memory.bytes, content)


def test_the_last_reference_gives_all_of_it_back(path: Path) -> None:
    memory = FileMemory(path)
    address = int(memory.bytes.ctypes.data)
    assert memory.own_piece()
    kept = memory.bytes[-1:]
    del memory
    assert mappings_of(path) == 1
    del kept

    assert mappings_of(path) == 0
    assert address not in mapped_starts()


def test_what_is_not_copied_yet_is_borrowed_until_it_is_dropped(path: Path) -> None:
    before = borrowed_bytes()
    memory, other = FileMemory(path), FileMemory(path)
    assert borrowed_bytes() - before == 2 * SIZE_BYTES

    assert memory.own_piece()
    assert borrowed_bytes() - before == 2 * SIZE_BYTES - PIECE_BYTES
    while memory.own_piece():
        pass
    assert borrowed_bytes() - before == SIZE_BYTES

    del other
    assert borrowed_bytes() == before


def mapped_starts() -> set[int]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {int(line.partition("-")[0], 16) for line in lines}


def test_a_system_without_memory_leaves_the_file_mapped(
    path: Path, content: np.ndarray, monkeypatch
) -> None:
    memory = FileMemory(path)

    def refused(_size_bytes: int) -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    with monkeypatch.context() as without:
        without.setattr(file_memory, "_huge_memory", refused)
        with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
            memory.own_piece()
    assert memory.num_owned_bytes == 0
    assert np.array_equal(memory.bytes, content)

    assert memory.own_piece()


@pytest.fixture
def shortened(path: Path, monkeypatch) -> None:
    """Make the file end before its last piece, once it was opened and its size is known."""
    announce = os.posix_fadvise

    def announced(fd: int, *told: int) -> None:
        announce(fd, *told)
        os.truncate(path, PIECE_BYTES)

    monkeypatch.setattr(os, "posix_fadvise", announced)


@pytest.mark.usefixtures("shortened")
def test_what_cannot_be_read_is_told_and_kills_nothing(path: Path) -> None:
    with pytest.raises(OSError, match="it was made shorter while it was read") as caught:
        FileMemory(path)
    assert caught.value.errno == errno.EIO


def test_a_kernel_that_cannot_read_ahead_reads_what_is_used(
    path: Path, content: np.ndarray, monkeypatch
) -> None:
    monkeypatch.setattr(populate, "_MADV_POPULATE_READ", 1 << 20)  # not known: EINVAL
    assert np.array_equal(FileMemory(path).bytes, content)


def test_there_is_nothing_to_map_of_an_empty_file(path: Path) -> None:
    os.truncate(path, 0)
    with pytest.raises(ValueError, match="empty"):
        FileMemory(path)


def test_nobody_writes_to_it(path: Path) -> None:
    small = path.with_name("small")
    small.write_bytes(b"x" * (mmap.PAGESIZE + 1))
    with pytest.raises(ValueError, match="read-only"):
        FileMemory(small).bytes[0] = 0
