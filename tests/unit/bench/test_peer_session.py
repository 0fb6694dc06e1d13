"""A run over peers: what cannot be had is told, what is there is not measured again."""

import sys
from pathlib import Path

import pytest

from bench.peers import session
from bench.peers.cache import Cache
from bench.peers.commands import Unavailable
from bench.peers.peer import Entry, Launch
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

    name, version, formats, entries = "peer", "1", ("int8", "int4"), ("",)

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.prepared = self.launched = 0

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
    return Session(Cache(tmp_path), Results(tmp_path / "results.jsonl"), 1, seed=1)


async def test_a_peer_that_cannot_be_had_is_told_once_for_each_row(run: Session) -> None:
    peer = Peer(refuses=True)
    await run.run(peer, ["W1", "W2x64"])
    found = run.results.records()
    assert {(r.key.weight_format, r.key.workload) for r in found} == {
        (name, workload) for name in peer.formats for workload in ("W1", "W2x64")
    }
    assert {r.unavailable for r in found} == {"it needs AVX-512"}
    assert (peer.prepared, peer.launched) == (1, 0)


async def test_what_counts_is_not_measured_again(
    run: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever else works on this machine must not decide whether the run counts.
    monkeypatch.setattr("bench.serve.machine.FOREIGN_CORES_LIMIT", 1000.0)
    peer = Peer()
    await run.run(peer, ["W1"])
    records = {(r.key.weight_format, r.key.workload): r for r in run.results.records()}
    assert set(records) == {(name, w) for name in peer.formats for w in ("W1", START)}
    assert all(r.counts for r in records.values())
    assert records["int8", "W1"].figures["end_to_end_tokens_per_s"] > 0
    assert records["int8", START].figures["start_again_s"] > 0
    started = peer.launched
    await run.run(peer, ["W1"])
    assert peer.launched == started == 6
