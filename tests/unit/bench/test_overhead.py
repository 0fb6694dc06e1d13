"""What the overhead benchmark counts, and how it shows it."""

import os
import threading
import time
from pathlib import Path

import pytest

from bench.overhead import __main__ as program
from bench.overhead.clocks import Spent, ThreadClock, own_threads
from bench.overhead.meter import TIMED, Counts, StepCounter
from bench.overhead.processes import ACTOR, ROLES, SUPERVISOR, WORKERS, Usage, used
from bench.overhead.report import Window, middle, quiet_table, tokens_table
from bench.serve.machine import CpuUse


def usage(**cpu_ns: int) -> Usage:
    return {role: Spent(cpu_ns.get(role.replace(" ", "_"), 0), 10) for role in ROLES}


def window(step_ns: int, taken: Usage, *, tokens: int = 100) -> Window:
    return Window(
        "gateway", 16, tokens, wall_s=2.0, step_ns=step_ns, sampling_ns=step_ns // 5, usage=taken
    )


def test_processor_time_of_a_process_is_that_of_all_its_threads() -> None:
    took_ns = []

    def work() -> None:
        sum(range(4_000_000))
        took_ns.append(time.thread_time_ns())

    before = Spent.of(os.getpid())
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    taken = Spent.of(os.getpid()) - before
    # The process learns late of what a thread did on another core.
    assert taken.cpu_ns >= took_ns[0] / 2 > 0


def test_threads_that_are_watched_count_with_the_one_that_asks() -> None:
    clock, alone = ThreadClock(), ThreadClock()
    begins, ended, done = (threading.Event() for _ in range(3))
    took_ns = []

    def work() -> None:
        begins.wait()
        sum(range(2_000_000))
        took_ns.append(time.thread_time_ns())
        ended.set()
        done.wait()

    before = own_threads()
    thread = threading.Thread(target=work)
    thread.start()
    try:
        clock.watch(own_threads() - before)
        began_ns, alone_ns = clock.read_ns(), alone.read_ns()
        begins.set()
        ended.wait()
        both_ns, own_ns = clock.read_ns() - began_ns, alone.read_ns() - alone_ns
    finally:
        done.set()
        thread.join()
    assert both_ns - own_ns == pytest.approx(took_ns[0], rel=0.5)


def test_a_wait_is_a_wake_up() -> None:
    before = Spent.of(os.getpid())
    assert not threading.Event().wait(0.001)
    assert (Spent.of(os.getpid()) - before).sleeps >= 1


def test_a_process_that_is_gone_is_told() -> None:
    child = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(child, 0)
    with pytest.raises(OSError):
        Spent.of(child)


def test_steps_counted_in_one_place_are_seen_in_another(tmp_path: Path) -> None:
    writer, reader = StepCounter(tmp_path / "counts"), StepCounter(tmp_path / "counts")
    for _ in range(TIMED):
        began_ns = writer.begin()
        sum(range(100_000))
        writer.stepped(began_ns)
        writer.sampled(writer.begin(), 3)
    assert reader.read().tokens == 3 * TIMED
    assert reader.read().step_ns > 0


def test_choosing_tokens_is_no_part_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of 700 ns, of which 500 are the forward pass, 40 Python and 160 the choice."""
    clock = iter((1000, 1500, 1540, 1700))
    counter = StepCounter(tmp_path / "counts")
    monkeypatch.setattr(counter.clock, "read_ns", lambda: next(clock))
    counter.stepped(counter.begin())
    counter.sampled(counter.begin(), 2)
    for _ in range(TIMED - 1):
        counter.stepped(counter.begin())
        counter.sampled(counter.begin(), 2)
    assert counter.read().step_ns == TIMED * 500
    assert counter.read().sampling_ns == TIMED * 160


def test_the_steps_that_are_not_timed_cost_no_clock(tmp_path: Path) -> None:
    counter = StepCounter(tmp_path / "counts")
    clocks = []
    for _ in range(2 * TIMED):
        clocks.append(counter.begin())
        counter.stepped(clocks[-1])
        counter.sampled(clocks[-1], 1)
    assert [clock is not None for clock in clocks] == 2 * ([True] + [False] * (TIMED - 1))


@pytest.mark.parametrize("timed", [1, 2])
def test_a_window_of_any_length_counts_a_step_for_what_it_takes(timed: int) -> None:
    """Six steps of two tokens, 50 ns each, of which one or two were timed."""
    before = Counts(timed_ns=700, timed_sampling_ns=90, timed_tokens=10, tokens=40)
    made = Counts(50 * timed, 20 * timed, 2 * timed, 12)
    found = Counts(*map(sum, zip(before, made, strict=True))).since(before)
    assert (found.step_ns, found.sampling_ns) == (6 * 50, 6 * 20)


def test_tokens_of_steps_that_are_timed_are_told_apart(tmp_path: Path) -> None:
    counter = StepCounter(tmp_path / "counts")
    for _ in range(TIMED + 2):
        counter.sampled(counter.begin(), 3)
    assert counter.read().timed_tokens == 2 * 3
    assert counter.read().tokens == (TIMED + 2) * 3


def test_where_no_step_is_timed_none_takes_time() -> None:
    assert Counts(timed_ns=0, timed_sampling_ns=0, timed_tokens=0, tokens=9).step_ns == 0


def test_what_is_not_the_step_is_shown_by_process() -> None:
    taken = usage(actor=1_300_000, supervisor=300_000, HTTP_workers=500_000, fleet_actor=100_000)
    lines = tokens_table([window(1_000_000, taken)], {16: 9_000.0}).splitlines()
    assert lines[2] == "| gateway, 16 | 50 | 9 | 10 | 2 | 1 | 3 | 5 | 1 | 12 | 120.0% |"


def test_a_paced_step_has_no_share() -> None:
    lines = tokens_table([window(0, usage(supervisor=300_000))], {}).splitlines()
    assert lines[2] == "| gateway, 16 | 50 |  | 0 | 0 | 0 | 3 | 0 | 0 | 3 |  |"


def test_the_median_window_by_the_time_of_a_token_counts() -> None:
    dear = window(1, usage(actor=900), tokens=10)
    cheap = window(1, usage(actor=1000), tokens=100)
    fair = window(1, usage(actor=2000), tokens=100)
    assert middle([dear, cheap, fair]) is fair
    assert middle([dear, cheap]) is cheap


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("", "--rounds 3 --dtype int4"),
        (
            "--rounds 1 --streams 1 4 --entries gateway --pace-ms 10 --threads 999",
            "--rounds 1 --dtype int4 --streams 1 4 --entries gateway --threads 999 --pace-ms 10",
        ),
    ],
)
def test_tables_name_the_command_that_makes_them_again(flags: str, told: str) -> None:
    options = program.arguments(flags.split())
    assert program.command(options) == f"python -m bench.overhead {told} --write"
    assert vars(program.arguments([*told.split(), "--write"])) == {**vars(options), "write": True}


@pytest.mark.parametrize("foreign_cores", [0.05, 0.5])
def test_tables_are_written_with_how_they_came_about_if_nobody_else_worked(
    foreign_cores: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def measure(*_: object) -> tuple[str, CpuUse]:
        return "the tables", CpuUse(1.0, 0.1, foreign_cores, 9.0)

    page = tmp_path / "page.md"
    page.write_text("<!-- overhead: begin --><!-- overhead: end -->")
    monkeypatch.setattr(program, "PAGE", page)
    monkeypatch.setattr(program, "measure", measure)
    monkeypatch.setattr("sys.argv", ["bench.overhead", "--write"])
    if foreign_cores > 0.15:
        with pytest.raises(SystemExit, match=r"other processes took 0\.50 core"):
            program.main()
        assert "the tables" not in page.read_text()
    else:
        program.main()
        assert "other processes took 0.05 core; " in page.read_text()
        assert "medians of 3 windows of each kind" in page.read_text()
    assert "the tables" in capsys.readouterr().out


def test_quiet_processes_are_shown_by_the_second() -> None:
    before, after = usage(), usage(actor=4_000_000, supervisor=10_000_000)
    lines = quiet_table(used(before, after), 2.0).splitlines()
    assert lines[2] == f"| {ACTOR} | 0.0 | 2.00 |"
    assert lines[3] == f"| {SUPERVISOR} | 0.0 | 5.00 |"
    assert any(line.startswith(f"| {WORKERS} |") for line in lines)
