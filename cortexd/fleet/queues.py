"""Requests that wait in the fleet actor, by model, each queue with a bound. Pure.

Order: higher priority; within one, principals take turns, each with its own requests in the order
in which they came. A principal that had a turn is behind those that wait since before, also with
what it sends next. One that comes anew is in the round after the one that is on, behind those that
wait for that since before: however many come, nobody waits longer than for those.
"""

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
    """A request that waits for a place. `number` is its place among all waiters, as they came."""

    ticket: Ticket
    request: RouteRequest
    priority: int
    principal: str | None
    number: int
    first_round: int
    """Its turn is in none before."""
    since: float
    deadline: float
    told_at: float


class _Rounds:
    """Whose turn it is among principals that wait for one model with one priority."""

    def __init__(self) -> None:
        self.coming = 0
        """The round that newcomers are in: the first in which nobody had a turn yet."""
        self._next: dict[str | None, int] = {}
        """Round of the next turn, of those that had theirs in the round that is on."""

    def next_of(self, principal: str | None) -> int:
        """Return the round before which a principal has no turn any more: none that is over."""
        return self._next.get(principal, max(self.coming - 1, 0))

    def had_turn(self, principal: str | None, turn: int) -> None:
        """Go on, as a request of the principal got what it waited for."""
        self.coming = max(self.coming, turn + 1)
        self._next[principal] = turn + 1
        self._next = {each: turn for each, turn in self._next.items() if turn >= self.coming}


class _Queue:
    """Who waits for one model."""

    def __init__(self) -> None:
        self.waiters: list[Waiter] = []
        """In the order of their numbers."""
        self._rounds: dict[int, _Rounds] = {}  # by priority

    def in_turn(self) -> list[Waiter]:
        """Return the waiters, first to be served first."""
        turns = self._turns()
        keys = [(-w.priority, turn, w.number) for w, turn in zip(self.waiters, turns, strict=True)]
        return [waiter for _, waiter in sorted(zip(keys, self.waiters, strict=True))]

    def had_turn(self, waiter: Waiter) -> None:
        """Put a waiter's principal behind others of its priority, while it is still there."""
        turn = self._turns()[self.waiters.index(waiter)]
        self.rounds_of(waiter.priority).had_turn(waiter.principal, turn)

    def rounds_of(self, priority: int) -> _Rounds:
        return self._rounds.setdefault(priority, _Rounds())

    def _turns(self) -> list[int]:
        """Return the round in which each waiter has its turn."""
        after: dict[tuple[int, str | None], int] = {}
        turns = []
        for waiter in self.waiters:
            bucket = (waiter.priority, waiter.principal)
            before = after.get(bucket)
            if before is None:
                before = self.rounds_of(waiter.priority).next_of(waiter.principal)
            turn = max(waiter.first_round, before)
            after[bucket] = turn + 1
            turns.append(turn)
        return turns


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
        waited_s: float = 0.0,
    ) -> Waiter:
        """Put a request behind the others of its priority and principal.

        `waited_s` of its `max_wait_s` are over.

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
        first_round = queue.rounds_of(priority).coming
        since = now - waited_s
        deadline = since + max_wait_s
        waiter = Waiter(
            ticket, request, priority, principal, self._numbers, first_round, since, deadline, now
        )
        queue.waiters.append(waiter)
        self._by_ticket[ticket] = waiter
        return waiter

    def remove(self, ticket: Ticket, *, served: bool = False) -> Waiter | None:
        """Take a waiter out; None if it is not waiting. One that is `served` has had its turn."""
        waiter = self._by_ticket.pop(ticket, None)
        if waiter is not None:
            queue = self._by_model[waiter.request.model_id]
            if served:
                queue.had_turn(waiter)
            queue.waiters.remove(waiter)
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
