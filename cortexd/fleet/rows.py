"""Which replica has which row of the in-flight table. Pure; the fleet actor owns it."""

from collections.abc import Mapping

from cortex_core.ids import ReplicaId


class RowTable:
    """Rows in use, and rows that wait until nobody counts in them any more.

    Workers hold leases across a restart of the actor, so `known` are the rows of the snapshot
    that the last actor left behind: a replica that is still there keeps its row.
    """

    def __init__(self, size: int, known: Mapping[ReplicaId, int] | None = None) -> None:
        self._rows: dict[ReplicaId, int] = {}
        self._emptying: dict[ReplicaId, int] = dict(known or {})
        taken = set(self._emptying.values())
        self._free = [row for row in reversed(range(size)) if row not in taken]

    def take(self, replica: ReplicaId) -> int | None:
        """Return the replica's row, a new one if need be; None when every row is taken."""
        if replica in self._emptying:
            self._rows[replica] = self._emptying.pop(replica)
        if replica not in self._rows:
            if not self._free:
                return None
            self._rows[replica] = self._free.pop()
        return self._rows[replica]

    def give_back(self, replica: ReplicaId) -> None:
        """The replica is gone. Its row is used again once `emptied` says that it is zero."""
        row = self._rows.pop(replica, None)
        if row is not None:
            self._emptying[replica] = row

    def emptied(self, in_flight: Mapping[int, int]) -> None:
        """Free the rows of gone replicas in which nothing is counted any more."""
        for replica, row in list(self._emptying.items()):
            if in_flight.get(row, 0) == 0:
                del self._emptying[replica]
                self._free.append(row)

    def in_use(self) -> list[int]:
        """Return every row that anybody may count in."""
        return [*self._rows.values(), *self._emptying.values()]
