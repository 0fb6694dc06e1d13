"""Places that were granted: who holds one, where, and when it is given up."""

from cortex_core.ids import ModelId, NodeName, ReplicaId, RequestId
from cortexd.fleet.holds import HOLD_S, Holds
from cortexd.fleet.protocol import ReplicaView
from cortexd.fleet.queues import Ticket

WORKER, OTHER = b"worker", b"other"


def replica(column: int) -> ReplicaView:
    name = f"n{column}/file:a"
    return ReplicaView(
        id=ReplicaId(name),
        model_id=ModelId("file:a"),
        node=NodeName(f"n{column}"),
        endpoint="http://n:1",
        status="ready",
        column=column,
        max_in_flight=4,
        vram_used_mb=1,
        servable=True,
    )


def ticket(name: str, origin: bytes = WORKER) -> Ticket:
    return Ticket(origin, RequestId(name))


def test_every_granted_request_holds_one_place_until_it_is_dropped() -> None:
    holds = Holds()
    holds.add(ticket("a"), replica(1), 0.0)
    holds.add(ticket("b"), replica(1), 0.0)
    holds.add(ticket("c"), replica(2), 0.0)
    assert (holds.on(1), holds.on(2), holds.on(3)) == (2, 1, 0)

    holds.drop(ticket("a"))
    holds.drop(ticket("a"))

    assert (holds.on(1), holds.on(2)) == (1, 1)


def test_a_connection_that_is_gone_holds_nothing() -> None:
    holds = Holds()
    holds.add(ticket("a"), replica(1), 0.0)
    holds.add(ticket("a", OTHER), replica(1), 0.0)

    holds.drop_origin(WORKER)

    assert holds.on(1) == 1
    assert holds.renew(ticket("a"), 1.0) is None
    assert holds.renew(ticket("a", OTHER), 1.0) == replica(1)


def test_a_place_that_nobody_takes_expires() -> None:
    holds = Holds()
    holds.add(ticket("a"), replica(1), 10.0)

    holds.drop_expired(10.0 + HOLD_S - 0.1)
    assert holds.on(1) == 1
    holds.drop_expired(10.0 + HOLD_S)
    assert holds.on(1) == 0


def test_a_renewed_place_is_one_place_and_expires_later() -> None:
    holds = Holds()
    holds.add(ticket("a"), replica(1), 10.0)

    assert holds.renew(ticket("a"), 14.0) == replica(1)

    holds.drop_expired(10.0 + HOLD_S)
    assert holds.on(1) == 1
    holds.drop_expired(14.0 + HOLD_S)
    assert holds.on(1) == 0
