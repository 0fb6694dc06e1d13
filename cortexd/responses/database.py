"""The SQLite file with the responses of one gateway. Blocking; belongs to one thread.

Each HTTP worker has a connection of its own. What a row says is written once, by the worker that
made the response. When it was last used is changed by every worker that keeps a response which goes
on from it, and any worker deletes it: when asked to, or when its time or the room is over. SQLite
lets one worker write at a time, and readers see whole transactions (WAL).
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from cortex_core.errors import InternalError, RequestTooLarge
from cortexd.responses.retention import Held, Retention

SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_S: Final = 5.0
"""How long a write, or the opening of the file, waits for another worker's."""
_BUSY_PAUSE_S: Final = 0.01
MAX_CONVERSATION_BYTES: Final = 64 * 1024 * 1024
"""Of responses that go on from one another; twice what one request may have."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY,
    previous_id TEXT,
    used_at REAL NOT NULL,
    size_bytes INTEGER NOT NULL,
    input BLOB NOT NULL,
    response BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_use ON responses (used_at, size_bytes);
"""
_USE_CHAIN: Final = """
WITH RECURSIVE chain(id, previous_id) AS (
    SELECT id, previous_id FROM responses WHERE id = ?2
    UNION SELECT r.id, r.previous_id FROM responses r JOIN chain ON r.id = chain.previous_id
)
UPDATE responses SET used_at = ?1 WHERE id IN (SELECT id FROM chain)
"""


class StoredResponse(msgspec.Struct, frozen=True):
    """One row. Both bodies are JSON: the list of the input's items, and the response itself."""

    id: str
    previous_id: str | None
    input: bytes
    response: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.input) + len(self.response)


class ResponseDatabase:
    """One connection. Times are seconds since 1970, so that they outlast the gateway."""

    def __init__(self, path: Path, retention: Retention) -> None:
        """Open the file, which is made for its owner's eyes only.

        Raises:
            InternalError: it cannot be made, is no database, or one of another version.
        """
        self._path = path
        self._retention = retention
        with self._told():
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            # SQLite gives the files beside it the mode of this one.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            try:
                self._write_ahead()
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _write_ahead(self) -> None:
        """Turn WAL on, in turn with other workers, which SQLite does not wait for here.

        It would upgrade a lock, and gives up at once where another connection does so too.
        """
        give_up_at = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                    raise
                time.sleep(_BUSY_PAUSE_S)
            else:
                return

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA synchronous = NORMAL")
        # Zeros in the place of what is deleted.
        self._connection.execute("PRAGMA secure_delete = ON")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, SCHEMA_VERSION):
            raise InternalError(
                f"cannot use {self._path}: version {version} of its form, expected "
                f"{SCHEMA_VERSION}; move the file away"
            )
        self._connection.executescript(_SCHEMA)
        self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def close(self) -> None:
        """Close the connection; the last one of all workers folds the log into the file."""
        self._connection.close()

    def put(self, row: StoredResponse, now: float) -> bool:
        """Keep a response and drop what may be kept no longer; say whether it was kept.

        Raises:
            InternalError: the file cannot be written.
        """
        if not self._retention.keeps(row.size_bytes):
            return False
        with self._transaction() as connection:
            unused_since = self._retention.unused_since(now)
            connection.execute("DELETE FROM responses WHERE used_at <= ?", (unused_since,))
            connection.execute(_USE_CHAIN, (now, row.previous_id))
            connection.execute(
                "INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?, ?)",
                (row.id, row.previous_id, now, row.size_bytes, row.input, row.response),
            )
            self._drop_surplus()
        return True

    def _drop_surplus(self) -> None:
        (total_bytes,) = self._connection.execute(
            "SELECT SUM(size_bytes) FROM responses"
        ).fetchone()
        with closing(
            self._connection.execute("SELECT id, size_bytes FROM responses ORDER BY used_at")
        ) as rows:
            dropped = self._retention.surplus(total_bytes or 0, (Held(*row) for row in rows))
        self._connection.executemany(
            "DELETE FROM responses WHERE id = ?", [(each,) for each in dropped]
        )

    def get(self, response_id: str, now: float) -> StoredResponse | None:
        """Return what is kept under `response_id`, if anything is.

        Raises:
            InternalError: the file cannot be read.
        """
        with self._told():
            return self._row(response_id, self._retention.unused_since(now))

    def conversation(self, response_id: str, now: float) -> list[StoredResponse] | None:
        """Return a response and those it goes on from, oldest first; None if one is gone.

        Raises:
            InternalError: the file cannot be read.
            RequestTooLarge: together they have more than `MAX_CONVERSATION_BYTES`.
        """
        rows: list[StoredResponse] = []
        size_bytes = 0
        next_id: str | None = response_id
        with self._told():
            while next_id is not None:
                row = self._row(next_id, self._retention.unused_since(now))
                if row is None:
                    return None
                size_bytes += row.size_bytes
                if size_bytes > MAX_CONVERSATION_BYTES:
                    raise RequestTooLarge(
                        f"cannot go on from {response_id}: its conversation has more than "
                        f"{MAX_CONVERSATION_BYTES} bytes"
                    )
                rows.append(row)
                # Rows of earlier versions may have an empty text for none.
                next_id = row.previous_id or None
        return rows[::-1]

    def _row(self, response_id: str, unused_since: float) -> StoredResponse | None:
        found = self._connection.execute(
            "SELECT id, previous_id, input, response FROM responses WHERE id = ? AND used_at > ?",
            (response_id, unused_since),
        ).fetchone()
        return None if found is None else StoredResponse(*found)

    def delete(self, response_id: str, now: float) -> bool:
        """Forget a response, its bytes in the file with it; say whether it was there.

        Raises:
            InternalError: the file cannot be written.
        """
        with self._transaction() as connection:
            gone = connection.execute(
                "DELETE FROM responses WHERE id = ? AND used_at > ?",
                (response_id, self._retention.unused_since(now)),
            )
        if gone.rowcount == 0:
            return False
        with self._told():
            # The log has older pages; unless a worker reads just now, they go at once.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return True

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            # Commits at the end, or takes everything back.
            with self._connection as connection:
                yield connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise InternalError(f"cannot use {self._path}: {error}") from error
