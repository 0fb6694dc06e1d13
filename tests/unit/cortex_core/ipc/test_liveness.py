"""A process past the deadline of its phase is hung, and half a record is never read."""

from collections.abc import Iterator

import pytest

from cortex_core.errors import InternalError
from cortex_core.ipc.liveness import (
    LIVENESS_SEGMENT_BYTES,
    Liveness,
    LivenessReader,
    LivenessWriter,
    Phase,
    hung,
)
from cortex_core.ipc.segment import Segment


@pytest.fixture
def segment() -> Iterator[Segment]:
    segment = Segment.create("liveness", LIVENESS_SEGMENT_BYTES)
    yield segment
    segment.close()


def test_nothing_before_the_first_record(segment: Segment) -> None:
    assert LivenessReader(segment).read() is None


def test_phase_and_beats_are_read_as_written(segment: Segment) -> None:
    now = [10.0]
    writer, reader = LivenessWriter(segment, clock=lambda: now[0]), LivenessReader(segment)
    writer.enter(Phase.STEPPING, 30.0)
    assert reader.read() == (0, Phase.STEPPING, 10.0, 30.0)
    now[0] = 12.0
    writer.enter(Phase.STEPPING, 30.0, 7)
    assert reader.read() == (7, Phase.STEPPING, 12.0, 30.0)
    writer.enter(Phase.IDLE, None, 7)
    assert reader.read() == (7, Phase.IDLE, 12.0, None)


def test_half_written_record_shows_the_last_whole_one(segment: Segment) -> None:
    writer, reader = LivenessWriter(segment, clock=lambda: 1.0), LivenessReader(segment)
    writer.enter(Phase.LOADING, 5.0)
    whole = reader.read()
    seal = segment.words(0, 1)
    seal[0] += 1
    assert reader.read() == whole
    LivenessWriter(segment, clock=lambda: 2.0).enter(Phase.IDLE, None)
    assert reader.read() == (0, Phase.IDLE, 2.0, None)


def test_unknown_phase_is_an_error(segment: Segment) -> None:
    LivenessWriter(segment).enter(Phase.IDLE, None)
    segment.words(16, 1)[0] = 99
    with pytest.raises(InternalError, match="cannot read liveness: 99"):
        LivenessReader(segment).read()


@pytest.mark.parametrize("now", [100.0, 130.0])
def test_within_its_deadline_nothing_is_hung(now: float) -> None:
    assert hung(Liveness(3, Phase.STEPPING, 100.0, 30.0), now) is None


def test_past_its_deadline_it_is_hung() -> None:
    reason = hung(Liveness(3, Phase.STEPPING, 100.0, 30.0), 131.5)
    assert reason == ("no sign of life for 31.5 s while stepping, allowed are 30 s (after step 3)")


def test_phase_without_deadline_is_never_hung() -> None:
    assert hung(Liveness(0, Phase.BLOCKED, 0.0, None), 1e9) is None
