"""The file of kept responses against a model of it, over restarts and two workers."""

import sqlite3
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cortex_core.errors import InternalError, RequestTooLarge
from cortexd.responses import database
from cortexd.responses.database import ResponseDatabase, StoredResponse
from cortexd.responses.retention import Retention

TTL_S = 100.0
MAX_BYTES = 60
RETENTION = Retention(ttl_s=TTL_S, max_bytes=MAX_BYTES)
ids = st.sampled_from("abcdefgh")


def row(name: str, previous: str | None = None, size: int = 10) -> StoredResponse:
    return StoredResponse(name, previous, b"[]", b"x" * (size - 2))


class StoreMachine(RuleBasedStateMachine):
    """Two workers on one file; what one keeps, the other finds."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "state" / "responses.db"
        self.workers = [ResponseDatabase(self.path, RETENTION) for _ in range(2)]
        self.now = 1000.0
        self.used: dict[str, float] = {}
        self.rows: dict[str, StoredResponse] = {}

    def alive(self, name: str | None) -> bool:
        return name in self.used and self.used[name] > self.now - TTL_S

    def chain(self, name: str | None) -> list[str]:
        found: list[str] = []
        while name is not None and self.alive(name):
            found.append(name)
            name = self.rows[name].previous_id
        return found

    @rule(worker=st.integers(0, 1), name=ids, previous=st.none() | ids, size=st.integers(2, 80))
    def put(self, worker: int, name: str, previous: str | None, size: int) -> None:
        if name in self.rows or previous not in (None, *self.rows):
            return
        self.now += 1
        new = row(name, previous, size)
        kept = self.workers[worker].put(new, self.now)
        assert kept == (size <= MAX_BYTES)
        if not kept:
            return
        self.used = {one: at for one, at in self.used.items() if self.alive(one)}
        for before in self.chain(previous):
            self.used[before] = self.now
        self.used[name], self.rows[name] = self.now, new
        stored = {one for one in self.used if self.workers[0].get(one, self.now) is not None}
        dropped = set(self.used) - stored
        held = sum(self.rows[one].size_bytes for one in stored)
        assert held <= MAX_BYTES
        for one in dropped:
            assert all(self.used[one] <= self.used[left] for left in stored)
            assert held + self.rows[one].size_bytes > MAX_BYTES or len(dropped) > 1
            del self.used[one]

    @rule(worker=st.integers(0, 1), name=ids)
    def delete(self, worker: int, name: str) -> None:
        assert self.workers[worker].delete(name, self.now) == self.alive(name)
        if self.alive(name):
            del self.used[name]

    @rule(seconds=st.floats(0, TTL_S))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.used)
    @rule(worker=st.integers(0, 1))
    def restart(self, worker: int) -> None:
        self.workers[worker].close()
        self.workers[worker] = ResponseDatabase(self.path, RETENTION)

    @invariant()
    def both_see_the_same(self) -> None:
        for worker in self.workers:
            for name in "abcdefgh":
                found = worker.get(name, self.now)
                assert found == (self.rows[name] if self.alive(name) else None)
                chain = self.chain(name)
                whole = bool(chain) and self.rows[chain[-1]].previous_id is None
                expected = [self.rows[one] for one in chain[::-1]] if whole else None
                assert worker.conversation(name, self.now) == expected

    def teardown(self) -> None:
        for worker in self.workers:
            worker.close()
        self.folder.cleanup()


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "responses.db"
    ResponseDatabase(path, RETENTION).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    path.write_bytes(b"not a database, and long enough to tell" * 40)
    with pytest.raises(InternalError, match=r"responses\.db: file is not a database"):
        ResponseDatabase(path, RETENTION)


def test_a_file_of_another_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(InternalError, match="version 7 of its form, expected 1; move the file"):
        ResponseDatabase(path, RETENTION)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InternalError, match=r"cannot use .*file/responses\.db: "):
        ResponseDatabase(tmp_path / "file" / "responses.db", RETENTION)


def test_a_conversation_that_is_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "MAX_CONVERSATION_BYTES", 25)
    store = ResponseDatabase(tmp_path / "responses.db", RETENTION)
    for number in range(3):
        store.put(row(str(number), str(number - 1) if number else None), 1.0)
    assert len(store.conversation("1", 1.0) or ()) == 2
    with pytest.raises(RequestTooLarge, match="cannot go on from 2"):
        store.conversation("2", 1.0)
    store.close()


def test_an_empty_text_in_a_row_is_the_beginning_of_its_conversation(tmp_path: Path) -> None:
    store = ResponseDatabase(tmp_path / "responses.db", RETENTION)
    store.put(row("a", ""), 1.0)
    assert store.conversation("a", 1.0) == [row("a", "")]
    assert store.conversation("", 1.0) is None
    store.close()


def test_what_is_deleted_is_in_none_of_the_files(tmp_path: Path) -> None:
    roomy = Retention(ttl_s=TTL_S, max_bytes=1 << 20)
    store = ResponseDatabase(tmp_path / "responses.db", roomy)
    store.put(StoredResponse("a", None, b"[]", b"secret " * 5000), 1.0)
    store.put(row("b"), 1.0)
    assert any(b"secret" in file.read_bytes() for file in tmp_path.iterdir())
    assert store.delete("a", 1.0)
    assert not any(b"secret" in file.read_bytes() for file in tmp_path.iterdir())
    assert store.get("b", 1.0) == row("b")
    store.close()


class Clock:
    """Time that passes where somebody sleeps, and `wake` says what else happens then."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self.now = 0.0
        self._wake = wake

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._wake()


@contextmanager
def being_made(path: Path) -> Iterator[sqlite3.Connection]:
    """Another worker that has begun to write the first of a new file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def test_the_first_opening_waits_for_another_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with being_made(tmp_path / "responses.db") as other:
        monkeypatch.setattr(database, "time", Clock(lambda: other.execute("ROLLBACK")))
        ResponseDatabase(tmp_path / "responses.db", RETENTION).close()


def test_the_first_opening_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(lambda: None)
    monkeypatch.setattr(database, "time", clock)
    with (
        being_made(tmp_path / "responses.db"),
        pytest.raises(InternalError, match="database is locked"),
    ):
        ResponseDatabase(tmp_path / "responses.db", RETENTION)
    assert clock.now == pytest.approx(database.BUSY_TIMEOUT_S, abs=0.1)


def test_many_workers_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    roomy = Retention(ttl_s=TTL_S, max_bytes=1 << 20)

    def work(worker: int) -> None:
        store = ResponseDatabase(path, roomy)
        for number in range(20):
            store.put(row(f"{worker}-{number}"), 1.0)
        store.close()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = ResponseDatabase(path, roomy)
    assert all(
        store.get(f"{worker}-{number}", 1.0) is not None
        for worker in range(4)
        for number in range(20)
    )
    store.close()
