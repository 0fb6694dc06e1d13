"""Requests that wait in the fleet actor, by model, each queue with a bound. Pure.

Order: higher priority; within one, principals take turns, each with its own requests in the order
in which they came. A principal that had a turn is behind those that wait since before, also with
what it sends next; one that comes anew has its first turn in the round that is on.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from cortex_core.errors import QueueFull
from cortex_core.ids import ModelId, RequestId
from cortexd.fleet.decisions import RouteRequest

RETRY_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """Names one waiter: whose connection, and which request on it."""

    origin: bytes
    request_id: RequestId


@dataclass(slots=True)
class Waiter:
    """A request that waits for a place. `number` is its turn among all waiters."""

    ticket: Ticket
    request: RouteRequest
    priority: int
    principal: str | None
    number: int
    since: float
    deadline: float
    told_at: float


class _Rounds:
    """Whose turn it is among principals that wait for one model with one priority."""

    def __init__(self) -> None:
        self._round = 0
        self._next: dict[str | None, int] = {}
        """Round of the next turn, of those that had theirs in this one or a later one."""

    def next_of(self, principal: str | None) -> int:
        """Return the round in which a principal's next request has its turn."""
        return self._next.get(principal, self._round)

    def had_turn(self, principal: str | None) -> None:
        """Go on, as a request of the principal got what it waited for."""
        turn = self.next_of(principal)
        self._round = max(self._round, turn)
        self._next[principal] = turn + 1
        self._next = {each: turn for each, turn in self._next.items() if turn > self._round}


class _Queue:
    """Who waits for one model."""

    def __init__(self) -> None:
        self.waiters: list[Waiter] = []
        """In the order of their numbers."""
        self._rounds: dict[int, _Rounds] = {}  # by priority

    def in_turn(self) -> list[Waiter]:
        """Return the waiters, first to be served first."""
        ahead: Counter[tuple[int, str | None]] = Counter()
        keys: list[tuple[int, int, int]] = []
        for waiter in self.waiters:
            bucket = (waiter.priority, waiter.principal)
            turn = self._rounds_of(waiter).next_of(waiter.principal) + ahead[bucket]
            ahead[bucket] += 1
            keys.append((-waiter.priority, turn, waiter.number))
        return [waiter for _, waiter in sorted(zip(keys, self.waiters, strict=True))]

    def had_turn(self, waiter: Waiter) -> None:
        """Put a waiter's principal behind others of its priority."""
        self._rounds_of(waiter).had_turn(waiter.principal)

    def _rounds_of(self, waiter: Waiter) -> _Rounds:
        return self._rounds.setdefault(waiter.priority, _Rounds())


class Queues:
    """One queue per model."""

    def __init__(self) -> None:
        self._by_ticket: dict[Ticket, Waiter] = {}
        self._by_model: dict[ModelId, _Queue] = {}
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._by_ticket)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._by_ticket

    def __iter__(self) -> Iterator[Waiter]:
        return iter(list(self._by_ticket.values()))

    def add(
        self,
        ticket: Ticket,
        request: RouteRequest,
        *,
        priority: int,
        principal: str | None,
        now: float,
        max_wait_s: float,
        bound: int,
    ) -> Waiter:
        """Put a request behind the others of its priority and principal.

        Raises:
            QueueFull: `bound` requests wait for the model already.
        """
        queue = self._by_model.setdefault(request.model_id, _Queue())
        if len(queue.waiters) >= bound:
            self._drop_if_empty(request.model_id)
            raise QueueFull(
                f"cannot queue the request: {bound} requests wait for {request.model_id} already",
                retry_after_s=RETRY_AFTER_S,
            )
        self._numbers += 1
        waiter = Waiter(
            ticket, request, priority, principal, self._numbers, now, now + max_wait_s, now
        )
        queue.waiters.append(waiter)
        self._by_ticket[ticket] = waiter
        return waiter

    def remove(self, ticket: Ticket, *, served: bool = False) -> Waiter | None:
        """Take a waiter out; None if it is not waiting. One that is `served` has had its turn."""
        waiter = self._by_ticket.pop(ticket, None)
        if waiter is not None:
            queue = self._by_model[waiter.request.model_id]
            queue.waiters.remove(waiter)
            if served:
                queue.had_turn(waiter)
            self._drop_if_empty(waiter.request.model_id)
        return waiter

    def waiting(self, model_id: ModelId) -> list[Waiter]:
        """Return who waits for the model, first to be served first."""
        queue = self._by_model.get(model_id)
        return [] if queue is None else queue.in_turn()

    def depth(self, model_id: ModelId) -> int:
        queue = self._by_model.get(model_id)
        return 0 if queue is None else len(queue.waiters)

    def models(self) -> list[ModelId]:
        """Return the models that are waited for, the one with the oldest waiter first."""
        return sorted(self._by_model, key=lambda m: self._by_model[m].waiters[0].number)

    def of_origin(self, origin: bytes) -> list[Waiter]:
        """Return who waits on one connection."""
        return [waiter for waiter in self if waiter.ticket.origin == origin]

    def _drop_if_empty(self, model_id: ModelId) -> None:
        if not self.depth(model_id):
            self._by_model.pop(model_id, None)
