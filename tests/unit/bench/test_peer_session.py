"""A run over peers: what cannot be had is told, what is there is not measured again."""

import sys
from pathlib import Path

import pytest

from bench.peers import session
from bench.peers.cache import Cache
from bench.peers.commands import Unavailable
from bench.peers.peer import Entry, Launch
from bench.peers.plan import SMOLLM2, Plan
from bench.peers.results import START, Results
from bench.peers.session import Session
from tests.fakes.ports import free_ports
from tests.fakes.token_server import save_tokenizer


class Weights:
    def __init__(self, cache: Cache, model_id: str) -> None:
        self.tokenizer = cache.root / "tokenizer.json"
        save_tokenizer(self.tokenizer)


class Peer:
    """The fake server, under the name of a peer."""

    version, formats, entries = "1", ("int8", "int4"), ("",)

    def __init__(self, name: str = "peer", *, refuses: bool = False) -> None:
        self.name = name
        self.refuses = refuses
        self.prepared = self.launched = 0

    @classmethod
    def formats_of(cls, model: str) -> tuple[str, ...]:
        return cls.formats

    def prepare(self) -> None:
        self.prepared += 1
        if self.refuses:
            raise Unavailable("it needs AVX-512")

    def launch(self, weights: Weights, weight_format: str, shape: object, *, fresh: bool) -> Launch:
        self.launched += 1
        (port,) = free_ports(1)
        argv = [sys.executable, "-m", "tests.fakes.token_server", str(port)]
        return Launch(argv, {}, [Entry(f"http://127.0.0.1:{port}", "m")])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr(session, "Weights", Weights)
    monkeypatch.setattr(session, "TRIES", 1)
    return Session(Cache(tmp_path), Results(tmp_path / "results.jsonl"), 1, 1, "make it")


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs count whoever else works on this machine."""
    monkeypatch.setattr("bench.serve.machine.FOREIGN_CORES_LIMIT", 1000.0)


def plan(*workloads: str, formats: tuple[str, ...] = Peer.formats) -> Plan:
    return Plan([SMOLLM2], workloads, formats)


async def test_a_peer_that_cannot_be_had_is_told_once_for_each_row(run: Session) -> None:
    peer = Peer(refuses=True)
    await run.run([peer], plan("W1", "W2x64"))
    found = run.results.records()
    assert {(r.key.weight_format, r.key.workload) for r in found} == {
        (name, workload) for name in peer.formats for workload in ("W1", "W2x64")
    }
    assert {r.unavailable for r in found} == {"it needs AVX-512"}
    assert (peer.prepared, peer.launched) == (1, 0)


@pytest.mark.usefixtures("clean")
async def test_what_counts_is_not_measured_again(run: Session) -> None:
    peer = Peer()
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
    peer = Peer()
    await run.run([peer], plan("W1", formats=("int4", "bf16")))
    (record,) = run.results.records()
    assert (record.key.weight_format, record.key.workload) == ("int4", "W1")
    assert peer.launched == 1


@pytest.mark.usefixtures("clean")
async def test_peers_take_turns_at_each_start(run: Session) -> None:
    await run.run([Peer("a"), Peer("b")], plan("W1", "W2x64", formats=("int4",)))
    order = [(r.key.workload, r.key.peer) for r in run.results.records()]
    assert order == [("W1", "a"), ("W1", "b"), ("W2x64", "a"), ("W2x64", "b")]


@pytest.mark.usefixtures("clean")
async def test_what_was_measured_holds_where_the_rest_cannot_be_had(run: Session) -> None:
    peer = Peer()
    await run.run([peer], plan("W1", formats=("int4",)))
    await run.run([Peer(refuses=True)], plan("W1", "W3", formats=("int4",)))
    found = {r.key.workload: r.unavailable for r in run.results.records()}
    assert found == {"W1": None, "W3": "it needs AVX-512"}
