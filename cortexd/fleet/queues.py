"""Requests that wait in the fleet actor, by model, each queue with a bound. Pure."""

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
    number: int
    since: float
    deadline: float
    told_at: float


class Queues:
    """One queue per model. Higher priority first, then first come, first served."""

    def __init__(self) -> None:
        self._by_ticket: dict[Ticket, Waiter] = {}
        self._by_model: dict[ModelId, list[Waiter]] = {}
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
        now: float,
        max_wait_s: float,
        bound: int,
    ) -> Waiter:
        """Put a request at the end of its priority's part of the queue.

        Raises:
            QueueFull: `bound` requests wait for the model already.
        """
        queue = self._by_model.setdefault(request.model_id, [])
        if len(queue) >= bound:
            self._drop_if_empty(request.model_id)
            raise QueueFull(
                f"cannot queue the request: {bound} requests wait for {request.model_id} already",
                retry_after_s=RETRY_AFTER_S,
            )
        self._numbers += 1
        waiter = Waiter(ticket, request, priority, self._numbers, now, now + max_wait_s, now)
        queue.append(waiter)
        queue.sort(key=lambda other: (-other.priority, other.number))
        self._by_ticket[ticket] = waiter
        return waiter

    def remove(self, ticket: Ticket) -> Waiter | None:
        """Take a waiter out; None if it is not waiting."""
        waiter = self._by_ticket.pop(ticket, None)
        if waiter is not None:
            self._by_model[waiter.request.model_id].remove(waiter)
            self._drop_if_empty(waiter.request.model_id)
        return waiter

    def waiting(self, model_id: ModelId) -> list[Waiter]:
        """Return who waits for the model, first to be served first."""
        return list(self._by_model.get(model_id, ()))

    def depth(self, model_id: ModelId) -> int:
        return len(self._by_model.get(model_id, ()))

    def models(self) -> list[ModelId]:
        """Return the models that are waited for, the one with the oldest waiter first."""
        return sorted(self._by_model, key=lambda m: min(w.number for w in self._by_model[m]))

    def of_origin(self, origin: bytes) -> list[Waiter]:
        """Return who waits on one connection."""
        return [waiter for waiter in self if waiter.ticket.origin == origin]

    def _drop_if_empty(self, model_id: ModelId) -> None:
        if not self._by_model.get(model_id, True):
            del self._by_model[model_id]
