"""What a process is doing and since when, in shared memory, so that a hang can be told.

| offset | type | what |
|---|---|---|
| 0 | u64 | seal: odd while the record is written |
| 8 | u64 | step: engine steps so far |
| 16 | u64 | phase |
| 24 | f64 | when the phase was entered or last gone on with, CLOCK_MONOTONIC |
| 32 | f64 | deadline of the phase in seconds, NaN for none |

Writing is a handful of stores, so it is done for every step. CLOCK_MONOTONIC is one clock for all
processes of a host.
"""

import math
import struct
import time
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from cortex_core.errors import InternalError
from cortex_core.ipc.fence import Fence
from cortex_core.ipc.segment import Segment

LIVENESS_SEGMENT_BYTES = 64
_FIELDS = struct.Struct("<QQdd")
"""What stands behind the seal."""
_READ_ATTEMPTS = 64


class Phase(IntEnum):
    """What the process is at. Each has its own deadline, given when it is entered."""

    STARTING = 0
    LOADING = 1
    IDLE = 2
    STEPPING = 3
    BLOCKED = 4


class Liveness(NamedTuple):
    step: int
    phase: Phase
    entered_monotonic_s: float
    deadline_s: float | None


def hung(record: Liveness, now: float) -> str | None:
    """Return why the process counts as hung, or None. `now` is CLOCK_MONOTONIC in seconds."""
    if record.deadline_s is None:
        return None
    silent_s = now - record.entered_monotonic_s
    if silent_s <= record.deadline_s:
        return None
    steps = f" (after step {record.step})" if record.step else ""
    return (
        f"no sign of life for {silent_s:.1f} s while {record.phase.name.lower()}, "
        f"allowed are {record.deadline_s:g} s{steps}"
    )


class HangWatch:
    """Looks at one process's liveness, again and again.

    A deadline counts once it has passed at two looks with no sign of life in between: after a
    suspension of the whole host, or of the watching process, every deadline has passed at the
    first look, and at the second whoever is well has said so.
    """

    def __init__(self) -> None:
        self._suspect: Liveness | None = None

    def look(self, record: Liveness | None, now: float) -> str | None:
        """Return why the process is hung, or None. `now` is CLOCK_MONOTONIC in seconds."""
        reason = hung(record, now) if record is not None else None
        if reason is None:
            self._suspect = None
            return None
        seen_before = record == self._suspect
        self._suspect = record
        return reason if seen_before else None


class LivenessWriter:
    """The watched process, or its parent before it starts that. One thread of it.

    The segment is the caller's to close.
    """

    def __init__(self, segment: Segment, clock: Callable[[], float] = time.monotonic) -> None:
        self._seal = segment.words(0, 1)
        self._fields = segment.bytes_at(8, _FIELDS.size)
        self._clock = clock
        self._fence = Fence()

    def enter(self, phase: Phase, deadline_s: float | None, step: int = 0) -> None:
        """Begin a phase behind so many steps, or go on with it: `deadline_s` runs anew.

        After that time without another call the process counts as hung; None is never.
        """
        # A predecessor that was killed while it wrote leaves an odd seal.
        seal = self._seal[0] | 1
        self._seal[0] = seal
        self._fence()
        until_s = math.nan if deadline_s is None else deadline_s
        _FIELDS.pack_into(self._fields, 0, step, phase, self._clock(), until_s)
        self._fence()
        self._seal[0] = seal + 1


class LivenessReader:
    """The watching process. One thread of it; the segment is the caller's to close."""

    def __init__(self, segment: Segment) -> None:
        self._words = segment.words(0, 3)
        self._times = segment.doubles(24, 2)
        self._fence = Fence()
        self._last: Liveness | None = None

    def read(self) -> Liveness | None:
        """Return the latest record, or None before the first.

        A process killed while it wrote leaves no whole record; then it is the last one read.

        Raises:
            InternalError: the record names no known phase.
        """
        for _ in range(_READ_ATTEMPTS):
            seal = self._words[0]
            if seal == 0:
                return None
            self._fence()
            step, phase = self._words[1], self._words[2]
            entered_s, deadline_s = self._times[0], self._times[1]
            self._fence()
            if seal % 2 == 0 and self._words[0] == seal:
                self._last = self._record(step, phase, entered_s, deadline_s)
                break
        return self._last

    @staticmethod
    def _record(step: int, phase: int, entered_s: float, deadline_s: float) -> Liveness:
        try:
            known = Phase(phase)
        except ValueError as ex:
            raise InternalError(f"cannot read liveness: {ex}") from ex
        return Liveness(step, known, entered_s, None if math.isnan(deadline_s) else deadline_s)
