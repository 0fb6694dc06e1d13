"""Places that were granted and are not counted by their worker yet. Pure."""

from collections import Counter
from dataclasses import dataclass

from cortexd.fleet.protocol import ReplicaView
from cortexd.fleet.queues import Ticket

HOLD_S = 5.0
"""How long a place is held for a worker that does not say that it took it."""


@dataclass(frozen=True, slots=True)
class _Hold:
    replica: ReplicaView
    until: float


class Holds:
    """One place for each granted request, until it is taken, cancelled or expired."""

    def __init__(self) -> None:
        self._by_ticket: dict[Ticket, _Hold] = {}
        self._by_column: Counter[int] = Counter()

    def add(self, ticket: Ticket, replica: ReplicaView, now: float) -> None:
        """Hold a place on `replica` for `HOLD_S`."""
        self._by_ticket[ticket] = _Hold(replica, now + HOLD_S)
        self._by_column[replica.column] += 1

    def renew(self, ticket: Ticket, now: float) -> ReplicaView | None:
        """Return where a place is held for the request, and hold it as if it was granted now."""
        hold = self._by_ticket.get(ticket)
        if hold is None:
            return None
        self._by_ticket[ticket] = _Hold(hold.replica, now + HOLD_S)
        return hold.replica

    def on(self, column: int) -> int:
        """Return how many places are held on the replica with this column."""
        return self._by_column[column]

    def drop(self, ticket: Ticket) -> None:
        """Hold nothing for the request any more. Idempotent."""
        hold = self._by_ticket.pop(ticket, None)
        if hold is not None:
            self._by_column[hold.replica.column] -= 1

    def drop_origin(self, origin: bytes) -> None:
        """Hold nothing for a connection that is gone."""
        for ticket in [ticket for ticket in self._by_ticket if ticket.origin == origin]:
            self.drop(ticket)

    def drop_expired(self, now: float) -> None:
        """Give up places that nobody took in time."""
        for ticket in [t for t, hold in self._by_ticket.items() if hold.until <= now]:
            self.drop(ticket)
