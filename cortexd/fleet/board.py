"""The fleet actor's side of the two shared segments: writes the snapshot, reads the counts."""

from collections.abc import Iterable

import msgspec

from cortex_core.decoding import UNDECODABLE
from cortex_core.ids import ReplicaId
from cortex_core.ipc.counters import CounterTable
from cortex_core.ipc.fence import Fence
from cortex_core.ipc.segment import Segment
from cortex_core.ipc.snapshot import SnapshotReader, SnapshotWriter
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.events import InFlightRead
from cortexd.fleet.layout import IN_FLIGHT_COLUMNS, started_column
from cortexd.fleet.protocol import FleetSnapshot


class FleetBoard:
    """What workers see of the actor, and the actor of workers. The only writer of the snapshot."""

    def __init__(self, snapshot: Segment, in_flight: Segment) -> None:
        self._table = CounterTable(in_flight, IN_FLIGHT_COLUMNS)
        self._reader = SnapshotReader(snapshot)
        self._writer = SnapshotWriter(snapshot)
        self._fence = Fence()
        self._shown: object = None

    def left_behind(self) -> dict[ReplicaId, int]:
        """Return the columns that the replicas of the last actor's snapshot have."""
        found = self._reader.read()
        if found is None:
            return {}
        try:
            snapshot = msgspec.msgpack.decode(found[1], type=FleetSnapshot)
        except UNDECODABLE:
            # An actor of another version wrote it; its workers are replaced with it.
            return {}
        return {replica.id: replica.column for replica in snapshot.replicas}

    def show(self, dispatcher: Dispatcher) -> bool:
        """Publish the snapshot if there is news; return whether there was.

        Raises:
            InternalError: it is larger than the segment; tried once for the same news.
        """
        news = dispatcher.news()
        if news == self._shown:
            return False
        self._shown = news
        snapshot = dispatcher.snapshot(self._reader.version() + 1)
        self._writer.publish(msgspec.msgpack.encode(snapshot))
        return True

    def read(self, columns: Iterable[int]) -> InFlightRead:
        """Add up what the workers count in these columns."""
        self._fence()
        wanted = list(columns)
        return InFlightRead(
            in_flight={column: self._table.sum(column) for column in wanted},
            started={column: self._table.sum(started_column(column)) for column in wanted},
        )
