"""The decision tree, with a planner that says what the test wants."""

from cortex_core.errors import Overloaded
from cortex_core.ids import DeviceName, ModelId, NodeName, ReplicaId
from cortex_core.neuron_api import ModelLimit
from cortexd.fleet.decisions import Decision, Load, Reject, RouteRequest, RouteTo, Wait
from cortexd.fleet.index import FleetIndex
from cortexd.fleet.protocol import FleetSnapshot, ModelView, ReplicaView
from cortexd.fleet.router import Router

A = ModelId("file:a")
FREE = Load(NodeName("n"), (DeviceName("cpu"),), (), 1, 1)
WAKE = Load(NodeName("n"), (DeviceName("cpu"),), (), 2, 1)
EVICT = Load(NodeName("n"), (DeviceName("cpu"),), (ReplicaId("n/file:b"),), 1, 1)


class Plan:
    """A planner with fixed answers."""

    def __init__(self, **answers: object) -> None:
        self.answers = answers

    def loading(self, request: RouteRequest) -> Wait | None:
        return Wait() if self.answers.get("loading") else None

    def wake(self, request: RouteRequest) -> Load | None:
        return WAKE if self.answers.get("asleep") else None

    def may_grow(self, request: RouteRequest) -> bool:
        return bool(self.answers.get("may_grow"))

    def has_replica(self, request: RouteRequest) -> bool:
        return bool(self.answers.get("present"))

    def into_free(self, request: RouteRequest) -> Load | None:
        return FREE if self.answers.get("free") else None

    def with_eviction(self, request: RouteRequest) -> Load | None:
        return EVICT if self.answers.get("evict") else None

    def obstacle(self, request: RouteRequest) -> Wait | Reject:
        return Reject(Overloaded("no"))


def replica(node: str, column: int, *, places: int = 4, **more: object) -> ReplicaView:
    fields: dict[str, object] = {"status": "ready", "servable": True} | more
    return ReplicaView(
        id=ReplicaId(f"{node}/{A}"),
        model_id=A,
        node=NodeName(node),
        endpoint=f"http://{node}",
        column=column,
        max_in_flight=places,
        **fields,
    )


def route(
    *replicas: ReplicaView,
    in_flight: tuple[int, ...] = (0, 0, 0),
    plan: Plan | None = None,
    failed_on: tuple[str, ...] = (),
    only_node: str | None = None,
    queued: bool = False,
) -> Decision:
    view = ModelView(A, (), None, ModelLimit(), queued=queued)
    index = FleetIndex(FleetSnapshot(1, (view,), (), replicas, {}))
    request = RouteRequest(
        A,
        tuple(ReplicaId(f"{node}/{A}") for node in failed_on),
        NodeName(only_node) if only_node else None,
    )
    return Router(plan).route(request, index, lambda column: in_flight[column])


def node_of(decision: Decision) -> str:
    assert isinstance(decision, RouteTo), decision
    return decision.replica.node


def test_the_least_busy_replica_is_taken() -> None:
    assert node_of(route(replica("n", 0), replica("m", 1), in_flight=(2, 1))) == "m"


def test_busy_means_share_of_places() -> None:
    large, small = replica("n", 0, places=100), replica("m", 1, places=2)
    assert node_of(route(small, large, in_flight=(10, 1))) == "n"


def test_replicas_that_cannot_serve_are_passed_over() -> None:
    broken = replica("n", 0, servable=False)
    draining = replica("m", 1, status="draining")
    assert node_of(route(broken, draining, replica("k", 2))) == "k"


def test_a_replica_whose_node_had_no_room_counts_as_full() -> None:
    full = replica("n", 0, full=True)
    assert node_of(route(full, replica("m", 1), in_flight=(0, 3))) == "m"
    assert isinstance(route(full, plan=Plan(present=True, evict=True)), Wait)


def test_a_worker_leaves_everything_else_to_the_actor() -> None:
    full = route(replica("n", 0), in_flight=(4,))
    failed = route(replica("n", 0), failed_on=("n",))
    assert [type(d) for d in (route(), full, failed)] == [Wait, Wait, Wait]


def test_a_worker_does_not_overtake_those_who_wait() -> None:
    assert isinstance(route(replica("n", 0), queued=True), Wait)
    assert node_of(route(replica("n", 0), queued=True, plan=Plan())) == "n"


def test_a_replica_it_failed_on_is_the_last_choice() -> None:
    both = (replica("n", 0), replica("m", 1))
    assert node_of(route(*both, in_flight=(0, 3), failed_on=("n",), plan=Plan())) == "m"
    assert node_of(route(both[0], failed_on=("n",), plan=Plan())) == "n"


def test_one_node_alone_may_be_asked_for() -> None:
    both = (replica("n", 0), replica("m", 1))
    assert node_of(route(*both, in_flight=(0, 3), only_node="m")) == "m"


def test_the_order_of_the_tree() -> None:
    everything = {"loading": True, "asleep": True, "free": True, "evict": True}
    assert isinstance(route(plan=Plan(**everything)), Wait)
    assert route(plan=Plan(**everything | {"loading": False})) == WAKE
    assert route(plan=Plan(free=True, evict=True)) == FREE
    assert route(plan=Plan(evict=True)) == EVICT
    assert isinstance(route(plan=Plan()), Reject)


def test_full_replicas_wait_or_grow_but_never_evict() -> None:
    full = replica("n", 0)
    present = {"present": True, "free": True, "evict": True}
    waits = route(full, in_flight=(4,), plan=Plan(**present))
    grows = route(full, in_flight=(4,), plan=Plan(**present, may_grow=True))
    no_room = route(full, in_flight=(4,), plan=Plan(present=True, evict=True, may_grow=True))
    assert isinstance(waits, Wait)
    assert grows == FREE
    assert isinstance(no_room, Wait)
