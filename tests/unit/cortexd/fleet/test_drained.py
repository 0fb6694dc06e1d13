"""What one fleet actor tells the next of drained nodes."""

from pathlib import Path

import pytest

from cortex_core.errors import InternalError
from cortex_core.ids import NodeName
from cortexd.fleet.drained import DRAINED_FILE, DrainedNodes

N, M = NodeName("n"), NodeName("m")


def test_the_next_actor_reads_what_was_written_last(tmp_path: Path) -> None:
    assert DrainedNodes(tmp_path).read() == frozenset()
    DrainedNodes(tmp_path).write([N])
    DrainedNodes(tmp_path).write({N, M})
    assert DrainedNodes(tmp_path).read() == {N, M}
    assert [path.name for path in tmp_path.iterdir()] == [DRAINED_FILE]


def test_a_file_that_is_not_one_of_names_counts_as_absent(tmp_path: Path) -> None:
    (tmp_path / DRAINED_FILE).write_text('["n"')
    assert DrainedNodes(tmp_path).read() == frozenset()


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match=r"cannot remember drained nodes in .*: No such file"):
        DrainedNodes(tmp_path / "gone").write([N])
