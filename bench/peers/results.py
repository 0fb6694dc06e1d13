"""What was measured, one JSON line each, so that a run that was cut off goes on where it was."""

import hashlib
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

START = "start"
"""Stands beside the workloads: the time from a process's start to its first token."""
UNFINISHED: Final = "unfinished"
"""Name of the figure that says, in words, that a run was given up; it has no others then."""
WINDOW_HOURS: Final = 6
"""Figures that are further apart do not stand side by side: a shared machine changes its pace."""
CLIENT: Final = Path(__file__).parents[1] / "serve"
"""What asks the servers: the client, its workloads, and how it looks at the machine."""
DIGEST_DIGITS: Final = 10
TIME_FORMAT: Final = "%Y-%m-%d %H:%M"
"""Of `Record.time`, local. As texts they sort by time."""


def now() -> str:
    """Return the time of a record that is made now."""
    return time.strftime(TIME_FORMAT)


def client_digest(folder: Path = CLIENT) -> str:
    """Return what tells this client from one whose code differs."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:DIGEST_DIGITS]


def earliest_beside(newest: str) -> str:
    """Return the earliest time of a record that can stand beside one of the time `newest`."""
    earliest = datetime.strptime(newest, TIME_FORMAT).astimezone() - timedelta(hours=WINDOW_HOURS)
    return earliest.strftime(TIME_FORMAT)


def earliest_shown(records: Sequence["Record"]) -> str:
    """Return the earliest time of one model's records that stand beside the newest measured one."""
    measured = [record for record in records if record.unavailable is None]
    return earliest_beside(max(record.time for record in measured or records))


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
    client: str = ""
    """See `client_digest`; empty where it was not noted yet, which is no client of today."""

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

    What could not be had does not take the place of what was measured before, nor what does not
    count that of what does and can stand beside it. What was measured before `since` is to be
    measured again, and so is what does not stand beside the newest record of its model any more.
    """

    def __init__(self, path: Path, since: str = "") -> None:
        self._path = path
        self._since = since
        self._measured: dict[Key, Record] = {}
        self._refused: dict[Key, Record] = {}
        text = path.read_bytes() if path.exists() else b""
        for record in _decoded(text.splitlines()):
            self._hold(record)
        if text and not text.endswith(b"\n"):  # a kill cut the last line off
            path.write_bytes(text + b"\n")

    def add(self, record: Record) -> None:
        """Keep a record."""
        self._hold(record)
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(record) + b"\n")

    def _hold(self, record: Record) -> None:
        if record.unavailable is not None:
            self._refused[record.key] = record
            return
        self._refused.pop(record.key, None)
        held = self._measured.get(record.key)
        better = held is not None and held.counts and not record.counts
        if held is None or not better or held.time < earliest_beside(record.time):
            self._measured[record.key] = record

    def missing(self, keys: Sequence[Key], repetitions: int) -> list[Key]:
        """Return those of `keys` that are to be measured, so many times each."""
        return [key for key in keys if not self._has(key, repetitions)]

    def _has(self, key: Key, repetitions: int) -> bool:
        """Tell whether a record of `key` counts, is new enough and of as many repetitions."""
        record = self._measured.get(key)
        if record is None or not record.counts or record.time < self._since:
            return False
        if record.figures.get("repetitions", repetitions) < repetitions:  # a start has none
            return False
        beside = [each for each in self._measured.values() if each.key.model == key.model]
        return record.time >= earliest_shown(beside)

    def records(self) -> list[Record]:
        """Return what was measured, in the order in which keys came, then what could not be had."""
        return [*self._measured.values(), *self._refused.values()]


def _decoded(lines: Iterable[bytes]) -> Iterable[Record]:
    """Yield whole records."""
    for line in lines:
        try:
            yield msgspec.json.decode(line, type=Record)
        except msgspec.MsgspecError:
            continue
