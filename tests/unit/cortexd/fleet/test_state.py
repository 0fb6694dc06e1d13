"""What the fleet is believed to be after each event."""

from cortex_core.errors import NodeUnavailable
from cortex_core.ids import DeviceName, ModelId, NodeName, ReplicaId
from cortexd.fleet.columns import ColumnTable
from cortexd.fleet.decisions import Load
from cortexd.fleet.events import (
    InFlightRead,
    LoadDone,
    LoadStarted,
    NodeFailed,
    StreamBroke,
    Unloaded,
    UnloadFailed,
    UnloadStarted,
)
from cortexd.fleet.state import FleetState
from tests.fakes.fleet_world import node_model, polled

A, B = ModelId("file:a"), ModelId("file:b")
N, R = NodeName("n"), ReplicaId("n/file:a")
GPU = DeviceName("cuda-0")
DOWN = NodeFailed(N, NodeUnavailable("no answer"))


def fleet(*events: object) -> FleetState:
    state = FleetState({N: "http://n:1/"}, columns=ColumnTable(4), unhealthy_after=3, now=0.0)
    for number, event in enumerate(events):
        state.apply(event, float(number))
    return state


def test_a_node_is_gone_after_three_polls_in_a_row() -> None:
    state = fleet(polled("n"), DOWN, DOWN)
    assert state.nodes[N].healthy
    state.apply(DOWN, 9.0)
    assert (state.nodes[N].healthy, state.nodes[N].down_since) == (False, 9.0)
    state.apply(polled("n"), 10.0)
    assert state.nodes[N].healthy


def test_after_a_stream_broke_one_poll_is_enough() -> None:
    state = fleet(polled("n", node_model(A)), StreamBroke(R), DOWN)
    assert not state.nodes[N].healthy
    assert list(state.replicas_of(A)) == []


def test_an_answer_from_before_the_break_does_not_clear_the_suspicion() -> None:
    state = fleet(polled("n", node_model(A)), StreamBroke(R), polled("n", node_model(A), at=0.5))
    assert not state.replicas[R].ready
    state.apply(polled("n", node_model(A), at=1.0), 3.0)
    assert state.replicas[R].ready


def test_a_poll_that_is_older_than_an_unload_changes_nothing() -> None:
    old = polled("n", node_model(A), version=1)
    state = fleet(old, Unloaded(R, state_version=2), old)
    assert R not in state.replicas


def test_an_unloaded_model_stays_known() -> None:
    state = fleet(polled("n", node_model(A)), Unloaded(R, state_version=2))
    assert state.nodes[N].models[A].status == "unloaded"


def test_a_new_boot_is_believed_whatever_its_version() -> None:
    state = fleet(polled("n", node_model(A), version=9), polled("n", version=1, boot="boot-1"))
    assert R not in state.replicas
    assert state.nodes[N].state_version == 1


def test_memory_is_free_again_before_the_next_poll_says_so() -> None:
    state = fleet(polled("n", node_model(A, mb=4000), vram_mb=10_000), Unloaded(R, 2))
    assert state.unreserved_mb(state.nodes[N], GPU) == 10_000


def test_a_load_under_way_counts_until_it_is_measured() -> None:
    load = Load(N, (GPU,), (), need_mb=6000, state_version=1)
    cold = node_model(A, "unloaded")
    state = fleet(polled("n", cold, vram_mb=10_000), LoadStarted(A, load))
    free = [state.unreserved_mb(state.nodes[N], GPU)]
    half = polled("n", node_model(B, mb=3500), vram_mb=10_000, version=2)
    state.apply(half, 3.0)
    free.append(state.unreserved_mb(state.nodes[N], GPU))
    assert free == [4000, 4000]


def test_a_load_done_is_known_before_the_next_poll() -> None:
    load = Load(N, (GPU,), (), 1, 1)
    done = LoadDone(A, N, node_model(A), state_version=2)
    state = fleet(polled("n"), LoadStarted(A, load), done)
    assert state.replicas[R].ready
    assert (state.loads, state.nodes[N].in_doubt) == ({}, True)


def test_a_replica_that_could_not_be_unloaded_serves_on() -> None:
    state = fleet(polled("n", node_model(A)), UnloadStarted(R))
    assert not state.replicas[R].ready
    state.apply(UnloadFailed(R, NodeUnavailable("no")), 2.0)
    assert state.replicas[R].ready


def test_use_is_seen_in_the_counts_even_if_it_was_short() -> None:
    state = fleet(polled("n", node_model(A)))
    state.apply(InFlightRead({0: 0}, {0: 5}), 7.0)
    state.apply(InFlightRead({0: 0}, {0: 5}), 9.0)
    assert state.replicas[R].last_used_at == 7.0


def test_more_replicas_than_columns_are_known_but_not_routed_to() -> None:
    models = [node_model(f"file:m{n}") for n in range(5)]
    state = fleet(polled("n", *models))
    assert sorted(str(r.column) for r in state.replicas.values()) == ["0", "1", "2", "3", "None"]


def test_a_new_actor_leaves_columns_to_the_replicas_that_had_them() -> None:
    """Workers still count by the last actor's snapshot while the nodes are asked anew."""
    other = ReplicaId("n/file:b")
    state = FleetState(
        {N: "http://n:1"}, columns=ColumnTable(4, {R: 0, other: 1}), unhealthy_after=3, now=0.0
    )
    state.apply(InFlightRead({}, {}), 0.1)
    state.apply(polled("n", node_model(B), node_model(A)), 0.2)
    assert (state.replicas[R].column, state.replicas[other].column) == (0, 1)


def test_a_replica_without_a_column_gets_the_next_that_is_free() -> None:
    state = FleetState({N: "http://n:1"}, columns=ColumnTable(1), unhealthy_after=3, now=0.0)
    state.apply(polled("n", node_model(A), node_model(B)), 0.0)
    assert state.without_column() == 1
    state.apply(polled("n", node_model(B), version=2), 1.0)
    state.published()
    state.apply(InFlightRead({}, {}), 2.0)
    state.apply(polled("n", node_model(B), version=2), 3.0)
    assert state.without_column() == 0
