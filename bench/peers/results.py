"""What was measured, one JSON line each, so that a run that was cut off goes on where it was."""

import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

START = "start"
"""Stands beside the workloads: the time from a process's start to its first token."""

WINDOW_HOURS: Final = 6
"""Figures that are further apart do not stand side by side: a shared machine changes its pace."""
TIME_FORMAT: Final = "%Y-%m-%d %H:%M"
"""Of `Record.time`, local. As texts they sort by time."""


def now() -> str:
    """Return the time of a record that is made now."""
    return time.strftime(TIME_FORMAT)


def earliest_beside(newest: str) -> str:
    """Return the earliest time of a record that can stand beside one of the time `newest`."""
    earliest = datetime.strptime(newest, TIME_FORMAT).astimezone() - timedelta(hours=WINDOW_HOURS)
    return earliest.strftime(TIME_FORMAT)


def file_name(model: str) -> str:
    """Return the part of a model's id that can be in a file's name."""
    return model.rpartition(":")[2].replace("/", "-")


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
    command: str = ""
    """What was called to measure it."""

    @property
    def counts(self) -> bool:
        """Whether nothing was wrong with the run."""
        return self.unavailable is None and bool(self.figures.get("counts"))


class Results:
    """The file. One process writes to it; the last record of a key is the one that holds.

    What was measured before `since` is to be measured again.
    """

    def __init__(self, path: Path, since: str = "") -> None:
        self._path = path
        self._since = since
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
        """Return those of `keys` that are to be measured."""
        return [key for key in keys if not self.has(key)]

    def has(self, key: Key) -> bool:
        """Tell whether there is a record of `key` that counts and is new enough."""
        record = self._records.get(key)
        return record is not None and record.counts and record.time >= self._since

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
