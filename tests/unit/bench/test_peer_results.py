"""What was measured is kept, and a run goes on where the last one ended."""

from pathlib import Path

import msgspec
import pytest

from bench.peers.__main__ import of_today
from bench.peers.results import Key, Record, Results, client_digest, earliest_beside, now

KEY = Key("pypi:m", "llama.cpp", "1", "Q8_0", "W1")
OTHER = Key("pypi:m", "cortex", "abc", "int8", "W1", "gateway")
COUNTS = Record(KEY, "2026-01-01 10:00", {"counts": True, "ttft_ms": 5.0})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def test_a_new_run_finds_what_was_kept(path: Path) -> None:
    Results(path).add(COUNTS)
    again = Results(path)
    assert again.missing([OTHER, KEY], 1) == [OTHER]
    assert again.records() == [COUNTS]


def test_the_last_try_holds(path: Path) -> None:
    results = Results(path)
    results.add(Record(KEY, "2026-01-01 09:00", {"counts": False}))
    assert results.missing([KEY], 1) == [KEY]
    results.add(COUNTS)
    assert results.missing([KEY], 1) == []
    assert Results(path).records() == [COUNTS]


@pytest.mark.parametrize(("time", "holds"), [("2026-01-01 16:00", 0), ("2026-01-01 16:01", 1)])
def test_a_run_that_counts_holds_against_one_that_does_not_while_they_stand_side_by_side(
    path: Path, time: str, holds: int
) -> None:
    tries = [COUNTS, Record(KEY, time, {"counts": False})]
    Results(path).add(tries[0])
    Results(path).add(tries[1])
    assert Results(path).records() == [tries[holds]]
    better = Record(KEY, "2026-01-01 16:02", {"counts": True, "ttft_ms": 7.0})
    Results(path).add(better)
    assert Results(path).records() == [better]


def test_what_could_not_be_had_is_tried_again(path: Path) -> None:
    Results(path).add(Record(KEY, "2026-01-01 09:00", unavailable="no compiler"))
    again = Results(path)
    assert again.missing([KEY], 1) == [KEY]
    assert again.records()[0].unavailable == "no compiler"


def test_a_line_that_a_kill_cut_off_is_passed_over(path: Path) -> None:
    Results(path).add(COUNTS)
    path.write_bytes(path.read_bytes() + b'{"key": {"model": "pypi:')
    assert Results(path).records() == [COUNTS]


def test_what_follows_a_cut_line_is_kept(path: Path) -> None:
    path.write_bytes(b'{"key": {"mod')
    Results(path).add(COUNTS)
    assert Results(path).records() == [COUNTS]


def test_a_server_is_named_by_what_tells_it_from_others() -> None:
    assert KEY.server == "llama.cpp Q8_0"
    assert OTHER.server == "cortex int8 gateway"


def test_what_is_of_another_time_is_measured_again(path: Path) -> None:
    Results(path).add(COUNTS)
    assert Results(path, since="2026-01-01 10:00").missing([KEY], 1) == []
    later = Results(path, since="2026-01-01 10:01")
    assert later.missing([KEY], 1) == [KEY]
    assert later.records() == [COUNTS]


def test_a_client_is_told_by_its_code(tmp_path: Path) -> None:
    (tmp_path / "stream.py").write_text("a = 1")
    (tmp_path / "texts.py").write_text("b = 2")
    first = client_digest(tmp_path)
    assert client_digest(tmp_path) == first
    (tmp_path / "notes.txt").write_text("no code")
    assert client_digest(tmp_path) == first
    (tmp_path / "stream.py").write_text("a = 2")
    assert client_digest(tmp_path) != first
    assert client_digest() == client_digest() != client_digest(tmp_path)


def test_what_another_client_found_is_kept_and_measured_again(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As is what was found before clients were noted."""
    path.write_bytes(
        b'{"key":{"model":"pypi:m","peer":"llama.cpp","version":"1","weight_format":"Q8_0",'
        b'"workload":"W1"},"time":"2026-01-01 10:00","figures":{"counts":true,"ttft_ms":5.0}}\n'
    )
    mine = msgspec.structs.replace(KEY, client="c0ffee")
    results = Results(path)
    assert results.records() == [COUNTS]
    assert results.missing([mine], 1) == [mine]
    again = Record(mine, "2026-01-01 10:01", {"counts": True, "ttft_ms": 4.0})
    results.add(again)
    assert results.missing([mine], 1) == []
    assert results.records() == [COUNTS, again]
    assert of_today(results.records(), {"llama.cpp": "1"}, "c0ffee") == [again]
    assert "left out 1 of the records" in caplog.text
    caplog.clear()
    assert of_today(results.records(), {"llama.cpp": "2"}, "c0ffee") == []
    assert not caplog.records


def test_a_window_is_of_some_hours() -> None:
    assert earliest_beside("2026-01-01 03:30") == "2025-12-31 21:30"
    assert earliest_beside(now()) < now()


def test_what_was_measured_fewer_times_than_asked_is_measured_again(path: Path) -> None:
    results = Results(path)
    results.add(Record(KEY, "2026-01-01 10:00", {"counts": True, "repetitions": 3}))
    results.add(Record(OTHER, "2026-01-01 10:00", {"counts": True}))
    assert results.missing([KEY, OTHER], 3) == []
    assert results.missing([KEY, OTHER], 4) == [KEY]


def test_what_does_not_stand_beside_the_newest_of_its_model_is_measured_again(path: Path) -> None:
    results = Results(path)
    results.add(COUNTS)
    results.add(Record(OTHER, "2026-01-01 16:00", {"counts": True}))
    assert results.missing([KEY], 1) == []
    elsewhere = msgspec.structs.replace(OTHER, model="pypi:other")
    results.add(Record(elsewhere, "2026-01-01 16:01", {"counts": True}))
    results.add(Record(KEY, "2026-01-01 16:01", unavailable="no compiler"))
    assert results.missing([KEY], 1) == []
    results.add(Record(OTHER, "2026-01-01 16:01", {"counts": True}))
    assert results.missing([KEY, OTHER], 1) == [KEY]


def test_what_cannot_be_had_stands_beside_what_was_measured_until_it_is_measured_again(
    path: Path,
) -> None:
    refused = Record(KEY, "2026-01-01 11:00", unavailable="no compiler")
    Results(path).add(COUNTS)
    Results(path).add(refused)
    again = Results(path)
    assert again.records() == [COUNTS, refused]
    again.add(COUNTS)
    assert again.records() == [COUNTS]
