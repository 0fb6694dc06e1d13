"""The snapshot that does not fit its segment."""

import pytest

from cortex_core.errors import InternalError
from cortex_core.ids import ModelId
from cortex_core.ipc.counters import counter_segment_bytes
from cortex_core.ipc.segment import Segment
from cortex_core.ipc.snapshot import SnapshotReader, snapshot_segment_bytes
from cortexd.fleet.board import FleetBoard
from cortexd.fleet.layout import IN_FLIGHT_COLUMNS
from tests.fakes.fleet_world import dispatcher_of, node_model, polled


def test_a_snapshot_that_is_too_large_leaves_the_last_one_and_is_tried_once() -> None:
    snapshot = Segment.create("snapshot", snapshot_segment_bytes(512))
    counts = Segment.create("counts", counter_segment_bytes(1, IN_FLIGHT_COLUMNS))
    board, fleet = FleetBoard(snapshot, counts), dispatcher_of("n")
    assert board.show(fleet)
    many = [node_model(ModelId(f"file:{number:0100}")) for number in range(8)]
    fleet.apply(polled("n", *many), 0.0)

    with pytest.raises(InternalError, match="bytes"):
        board.show(fleet)

    assert not board.show(fleet)
    assert SnapshotReader(snapshot).version() == 1
    fleet.apply(polled("n", version=2), 1.0)
    assert board.show(fleet)
    snapshot.close()
    counts.close()
