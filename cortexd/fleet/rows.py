"""Which replica has which row of the in-flight table. Pure; the fleet actor owns it."""

from collections.abc import Mapping

from cortex_core.ids import ReplicaId


class RowTable:
    """Rows in use, and rows that wait until nobody counts in them any more.

    The row of a replica that is gone passes two gates: first a snapshot without the replica is
    published, so that no worker begins to count there; then it has to be empty. Workers hold
    leases across a restart of the actor, so `known` are the rows of the snapshot that the last
    actor left behind: a replica that is still there keeps its row.
    """

    def __init__(self, size: int, known: Mapping[ReplicaId, int] | None = None) -> None:
        self._rows: dict[ReplicaId, int] = {}
        self._shown: dict[ReplicaId, int] = dict(known or {})
        self._emptying: dict[ReplicaId, int] = {}
        taken = set(self._shown.values())
        self._free = [row for row in reversed(range(size)) if row not in taken]

    def take(self, replica: ReplicaId) -> int | None:
        """Return the replica's row, a new one if need be; None when every row is taken."""
        for gone in (self._shown, self._emptying):
            if replica in gone:
                self._rows[replica] = gone.pop(replica)
        if replica not in self._rows:
            if not self._free:
                return None
            self._rows[replica] = self._free.pop()
        return self._rows[replica]

    def give_back(self, replica: ReplicaId) -> None:
        """The replica is gone. Its row is used again after `published` and `emptied`."""
        row = self._rows.pop(replica, None)
        if row is not None:
            self._shown[replica] = row

    def published(self) -> None:
        """Workers see a snapshot without the replicas that are gone."""
        self._emptying |= self._shown
        self._shown.clear()

    def emptied(self, in_flight: Mapping[int, int]) -> None:
        """Free the rows that no worker sees any more and in which nothing is counted."""
        for replica, row in list(self._emptying.items()):
            if in_flight.get(row, 0) == 0:
                del self._emptying[replica]
                self._free.append(row)

    def in_use(self) -> list[int]:
        """Return every row that anybody may count in."""
        return [*self._rows.values(), *self._shown.values(), *self._emptying.values()]
