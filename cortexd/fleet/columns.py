"""Which replica has which column of the in-flight table. Pure; the fleet actor owns it."""

from collections.abc import Mapping

from cortex_core.ids import ReplicaId


class ColumnTable:
    """Columns in use, and columns that wait until nobody counts in them any more.

    The column of a replica that is gone passes two gates: first a snapshot without the replica is
    published, so that no worker begins to count there; then it has to be empty. Workers hold
    leases across a restart of the actor, so `known` are the columns of the snapshot that the last
    actor left behind: a replica that is still there keeps its column.
    """

    def __init__(self, size: int, known: Mapping[ReplicaId, int] | None = None) -> None:
        self._columns: dict[ReplicaId, int] = {}
        self._shown: dict[ReplicaId, int] = dict(known or {})
        self._emptying: dict[ReplicaId, int] = {}
        taken = set(self._shown.values())
        self._free = [column for column in reversed(range(size)) if column not in taken]

    def take(self, replica: ReplicaId) -> int | None:
        """Return the replica's column, a new one if need be; None when every column is taken."""
        for gone in (self._shown, self._emptying):
            if replica in gone:
                self._columns[replica] = gone.pop(replica)
        if replica not in self._columns:
            if not self._free:
                return None
            self._columns[replica] = self._free.pop()
        return self._columns[replica]

    def give_back(self, replica: ReplicaId) -> None:
        """The replica is gone. Its column is used again after `published` and `emptied`."""
        column = self._columns.pop(replica, None)
        if column is not None:
            self._shown[replica] = column

    def published(self) -> None:
        """Workers see a snapshot without the replicas that are gone."""
        self._emptying |= self._shown
        self._shown.clear()

    def emptied(self, in_flight: Mapping[int, int]) -> None:
        """Free the columns that no worker sees any more and in which nothing is counted."""
        for replica, column in list(self._emptying.items()):
            if in_flight.get(column, 0) == 0:
                del self._emptying[replica]
                self._free.append(column)

    def in_use(self) -> list[int]:
        """Return every column that anybody may count in."""
        return [*self._columns.values(), *self._shown.values(), *self._emptying.values()]
