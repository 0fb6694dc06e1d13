"""Two real processes on one segment, each at full speed."""

import hashlib
import subprocess
import sys
from pathlib import Path

from cortex_core.ipc.liveness import (
    LIVENESS_SEGMENT_BYTES,
    LivenessReader,
    LivenessWriter,
    Phase,
)
from cortex_core.ipc.ring import RingReader
from cortex_core.ipc.segment import Segment
from cortex_core.ipc.snapshot import SnapshotReader, snapshot_segment_bytes
from tests.fakes.waiting import WAIT_S, wait_until

RECORDS = 20_000
VERSIONS = 3_000

RING_PRODUCER = f"""
import hashlib, sys
from cortex_core.ipc.ring import RingWriter
from cortex_core.ipc.segment import Segment
writer = RingWriter(Segment.attach(int(sys.argv[1])))
for number in range({RECORDS}):
    record = number.to_bytes(4, "little") * (number % 60)
    while not writer.try_write(record):
        pass
"""
SNAPSHOT_WRITER = f"""
import hashlib, sys
from cortex_core.ipc.snapshot import SnapshotWriter
from cortex_core.ipc.segment import Segment
writer = SnapshotWriter(Segment.attach(int(sys.argv[1])))
for number in range(1, {VERSIONS} + 1):
    body = number.to_bytes(8, "little") * (number % 500)
    writer.publish(hashlib.blake2s(body).digest() + body)
"""
LIVENESS_WRITER = """
import signal, sys
from cortex_core.ipc.liveness import LivenessWriter, Phase
from cortex_core.ipc.segment import Segment
writer = LivenessWriter(Segment.attach(int(sys.argv[1])))
writer.enter(Phase.STEPPING, 30.0)
step = 0
while True:
    step += 1
    writer.enter(Phase.STEPPING, 30.0, step)
"""


def start(program: str, segment: Segment) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-c", program, str(segment.fd)]
    return subprocess.Popen(argv, pass_fds=[segment.fd])


def test_ring_hands_every_record_over_intact_and_in_order() -> None:
    segment = Segment.create("ring", 128 + 4096)
    reader = RingReader(segment)
    producer = start(RING_PRODUCER, segment)
    received: list[bytes] = []

    def all_here() -> bool:
        # Several reads for each pause: the ring is far smaller than what passes through it.
        for _ in range(2000):
            received.extend(reader.read_until(reader.published_head))
        return len(received) >= RECORDS

    wait_until(all_here, timeout_s=120)
    assert producer.wait(WAIT_S) == 0
    assert received == [number.to_bytes(4, "little") * (number % 60) for number in range(RECORDS)]
    segment.close()


def test_snapshot_is_never_seen_torn() -> None:
    segment = Segment.create("snapshot", snapshot_segment_bytes(8192))
    reader = SnapshotReader(segment)
    writer = start(SNAPSHOT_WRITER, segment)
    versions: list[int] = []

    def saw_the_last() -> bool:
        for _ in range(200):
            if (found := reader.read()) is None:
                return False
            version, payload = found
            assert hashlib.blake2s(payload[32:]).digest() == payload[:32]
            versions.append(version)
        return versions[-1] == VERSIONS

    wait_until(saw_the_last, timeout_s=120)
    assert writer.wait(WAIT_S) == 0
    assert versions == sorted(versions)
    segment.close()


def test_liveness_survives_its_writer_killed_at_any_moment() -> None:
    segment = Segment.create("liveness", LIVENESS_SEGMENT_BYTES)
    reader = LivenessReader(segment)
    writer = start(LIVENESS_WRITER, segment)
    steps: list[int] = []

    def saw_many_steps() -> bool:
        record = reader.read()
        if record is not None:
            assert record.phase == Phase.STEPPING
            assert record.deadline_s == 30.0
            steps.append(record.step)
        return len(set(steps)) > 20

    wait_until(saw_many_steps, timeout_s=120)
    writer.kill()
    writer.wait(WAIT_S)
    last = reader.read()
    assert last is not None
    assert last.step >= steps[-1]
    assert steps == sorted(steps)
    LivenessWriter(segment).enter(Phase.STARTING, None)
    record = reader.read()
    assert record is not None
    assert (record.phase, record.deadline_s) == (Phase.STARTING, None)
    segment.close()


def test_memory_is_gone_with_its_last_process() -> None:
    segment = Segment.create("short-lived", 1 << 20)
    descriptors, maps = Path("/proc/self/fd"), Path("/proc/self/maps")
    assert "short-lived" in str((descriptors / str(segment.fd)).readlink())
    assert "short-lived" in maps.read_text()
    fd = segment.fd
    segment.close()
    assert "short-lived" not in maps.read_text()
    assert not (descriptors / str(fd)).exists()
