"""Memory and processors within control groups, over folders that look like them."""

import os
from pathlib import Path

import psutil
import pytest

from cortex_core.sizes import MIB
from neurond.host import host_memory, host_threads


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def membership(root: Path, line: str) -> Path:
    path = root.parent / "membership"
    path.write_text(f"{line}\n")
    return path


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_a_host_without_limits_has_what_the_machine_has(root: Path) -> None:
    memory = host_memory(root, root / "absent")

    assert memory.total_bytes == psutil.virtual_memory().total
    assert 0 < memory.free_bytes <= memory.total_bytes
    assert host_threads(root, root / "absent") == len(os.sched_getaffinity(0))


def test_the_tightest_group_above_counts(root: Path) -> None:
    root.mkdir()
    mine = membership(root, "0::/system.slice/neurond.service")
    group(root / "system.slice" / "neurond.service", memory__max="max", memory__current="1")
    group(
        root / "system.slice",
        memory__max=str(100 * MIB),
        memory__current=str(70 * MIB),
        memory__stat=f"anon 1\ninactive_file {20 * MIB}",
    )

    memory = host_memory(root, mine)

    assert (memory.total_bytes, memory.free_bytes) == (100 * MIB, 50 * MIB)


@pytest.mark.parametrize(("borrowed", "free"), [(5, 45), (20, 30), (25, 30)])
def test_page_cache_that_is_needed_is_not_free(root: Path, borrowed: int, free: int) -> None:
    root.mkdir()
    mine = membership(root, "0::/box")
    group(
        root / "box",
        memory__max=str(100 * MIB),
        memory__current=str(70 * MIB),
        memory__stat=f"inactive_file {20 * MIB}",
    )

    memory = host_memory(root, mine, borrowed_bytes=borrowed * MIB)

    assert memory.free_bytes == free * MIB
    everything = psutil.virtual_memory().total
    assert host_memory(root, root / "absent", borrowed_bytes=everything).free_bytes == 0


def test_version_one_groups_are_read(root: Path) -> None:
    root.mkdir()
    mine = membership(root, "4:memory:/docker/abc")
    group(
        root / "memory" / "docker" / "abc",
        memory__limit_in_bytes=str(64 * MIB),
        memory__usage_in_bytes=str(80 * MIB),
    )

    memory = host_memory(root, mine)

    assert (memory.total_bytes, memory.free_bytes) == (64 * MIB, 0)


@pytest.mark.parametrize(
    ("quota", "threads"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", None)]
)
def test_a_quota_of_processors_bounds_threads(root: Path, quota: str, threads: int | None) -> None:
    root.mkdir()
    mine = membership(root, "0::/box")
    group(root / "box", cpu__max=quota)

    assert host_threads(root, mine) == (threads or len(os.sched_getaffinity(0)))
