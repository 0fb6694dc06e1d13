"""Tables say how their figures were taken, and are not written where they do not count."""

import re
from pathlib import Path

import pytest

from bench.circumstances import circumstances, write_clean
from bench.hardware import hardware
from bench.serve.machine import FOREIGN_CORES_LIMIT, CpuUse

PAGE = "<!-- a: begin -->\nold\n<!-- a: end -->\n"


def use(foreign_cores: float) -> CpuUse:
    return CpuUse(1.0, 0.5, foreign_cores, 10.0)


def test_a_table_says_when_on_what_and_how_it_came_about() -> None:
    told = circumstances("make it", "three rounds", use(0.041))
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d, ", told)
    rest = told.partition(", ")[2]
    assert rest == (f"{hardware()}; other processes took 0.04 core; three rounds. By `make it`.")


def test_what_hangs_on_no_clock_does_not_tell_who_else_worked() -> None:
    assert circumstances("make it").endswith(f", {hardware()}. By `make it`.")


def test_figures_of_a_quiet_machine_are_written(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    write_clean(path, "a", "new", use(FOREIGN_CORES_LIMIT))
    assert "\nnew\n" in path.read_text()


def test_figures_taken_beside_other_work_are_not(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    with pytest.raises(SystemExit, match=r"processes took 0.60 core .* run it again") as ended:
        write_clean(path, "a", "new", use(0.6))
    assert isinstance(ended.value.code, str), "a message, with which the status is 1"
    assert path.read_text() == PAGE
