"""What was measured, one JSON line each, so that a run that was cut off goes on where it was."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

START = "start"
"""Stands beside the workloads: the time from a process's start to its first token."""


class Key(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was measured; two records of one key are two tries at the same."""

    model: str
    peer: str
    version: str
    weight_format: str
    workload: str
    entry: str = ""

    @property
    def server(self) -> str:
        """The name of its row."""
        return " ".join(part for part in (self.peer, self.weight_format, self.entry) if part)


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One measurement, or why there is none."""

    key: Key
    time: str
    figures: dict[str, Any] = {}
    unavailable: str | None = None

    @property
    def counts(self) -> bool:
        """Whether it need not be measured again."""
        return self.unavailable is None and bool(self.figures.get("counts"))


class Results:
    """The file. One process writes to it; the last record of a key is the one that holds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[Key, Record] = {}
        text = path.read_bytes() if path.exists() else b""
        for record in _decoded(text.splitlines()):
            self._records[record.key] = record
        if text and not text.endswith(b"\n"):  # a kill cut the last line off
            path.write_bytes(text + b"\n")

    def add(self, record: Record) -> None:
        """Keep a record."""
        self._records[record.key] = record
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(record) + b"\n")

    def missing(self, keys: Sequence[Key]) -> list[Key]:
        """Return those of `keys` that have no record that counts."""
        return [key for key in keys if not self.has(key)]

    def has(self, key: Key) -> bool:
        """Tell whether there is a record of `key` that counts."""
        record = self._records.get(key)
        return record is not None and record.counts

    def records(self) -> list[Record]:
        """Return the records that hold, in the order in which their keys came."""
        return list(self._records.values())


def _decoded(lines: Iterable[bytes]) -> Iterable[Record]:
    """Yield whole records."""
    for line in lines:
        try:
            yield msgspec.json.decode(line, type=Record)
        except msgspec.MsgspecError:
            continue
