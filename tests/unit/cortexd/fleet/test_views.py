"""How far a model is on its way, as clients are told."""

from cortex_core.canonical import Loading
from cortex_core.ids import DeviceName, ModelId, NodeName, ReplicaId
from cortex_core.neuron_api import LoadProgress
from cortexd.fleet.decisions import Load
from cortexd.fleet.events import LoadStarted, Unloaded
from cortexd.fleet.views import loading_of
from tests.fakes.fleet_world import dispatcher_of, node_model, polled

A, B = ModelId("file:a"), ModelId("file:b")
VICTIM = ReplicaId("n/file:b")
LOAD = Load(NodeName("n"), (DeviceName("cuda-0"),), (VICTIM,), 9000, 1)


def test_a_load_is_queued_then_evicts_then_loads_then_is_as_the_node_says() -> None:
    state = dispatcher_of("n").state
    state.apply(polled("n", node_model(B, mb=5000)), 0.0)
    assert loading_of(state, A) == Loading("queued")

    state.apply(LoadStarted(A, LOAD), 0.0)
    assert loading_of(state, A) == Loading("evicting")
    state.apply(Unloaded(VICTIM, state_version=2), 1.0)
    assert loading_of(state, A) == Loading("loading")

    state.apply(polled("n", node_model(A, "loading"), version=3), 2.0)
    assert loading_of(state, A) == Loading("loading")
    told = LoadProgress("fetching", 0.25, 12.0)
    state.apply(polled("n", node_model(A, "fetching", loading=told), version=4), 3.0)
    assert loading_of(state, A) == Loading("fetching", 0.25, 12.0)
