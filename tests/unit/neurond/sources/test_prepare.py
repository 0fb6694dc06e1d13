"""Files beside the weights: whole, or not there."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from neurond.sources.prepare import write_whole

ROOM = 1000


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file can grow beyond `ROOM` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("little_room")
def test_a_file_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    write_whole(path, b"x" * ROOM)
    with pytest.raises(OSError, match="too large"):
        write_whole(path, b"y" * (ROOM + 1))
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"x" * ROOM
