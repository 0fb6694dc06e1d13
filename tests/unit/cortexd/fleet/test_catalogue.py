"""What is configured goes before what nodes say, key by key."""

import pytest

from cortex_core.ids import ModelId, NodeName
from cortex_core.neuron_api import EmbeddingSizes, ModelLimit
from cortexd.config import AdmissionConfig, ModelConfig, ModelsConfig, TiersConfig
from cortexd.fleet.catalogue import Catalogue
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.views import snapshot_of
from tests.fakes.fleet_world import dispatcher_of, node_model, polled

A, B = ModelId("file:a"), ModelId("file:b")
N = NodeName("n")


def fleet_of(model: ModelConfig | None = None, **reported: object) -> Dispatcher:
    """A node that has A on disk, and reports so of it."""
    fleet = dispatcher_of("n", models=() if model is None else (model,))
    fleet.apply(polled("n", node_model(A, "unloaded", mb=1000, **reported)), 0.0)
    return fleet


def test_a_limit_is_as_configured_else_as_reported() -> None:
    fleet = fleet_of(
        ModelConfig(id=A, limit=ModelLimit(context=4096, output=512)),
        limit=ModelLimit(context=8192, input=7000),
    )
    limit = fleet.catalogue.limit(fleet.state, A)
    assert limit == ModelLimit(context=4096, input=7000, output=512)
    assert fleet.catalogue.limit(fleet.state, B) == ModelLimit()


def test_vectors_have_the_sizes_that_a_node_says_which_has_the_model_loaded() -> None:
    sizes = EmbeddingSizes(384, 256)
    fleet = dispatcher_of("n", "m")
    fleet.apply(polled("n", node_model(A, "unloaded")), 0.0)
    assert fleet.snapshot().models[0].embedding is None
    fleet.apply(polled("m", node_model(A, embedding=sizes)), 0.0)
    assert fleet.snapshot().models[0].embedding == sizes


def test_tiers_are_told_to_workers() -> None:
    models = ModelsConfig(tiers=TiersConfig(opus=A))
    catalogue = Catalogue(models, AdmissionConfig())
    snapshot = snapshot_of(dispatcher_of("n").state, catalogue, queued=(), default_scheme="hf")
    assert snapshot.tiers == {"opus": A}


def test_a_template_makes_a_model_one_to_chat_with_before_any_node_was_told_of_it() -> None:
    for reported in (["completions"], ["completions", "chat"]):
        fleet = fleet_of(ModelConfig(id=A, chat_template="t"), capabilities=reported)
        assert fleet.catalogue.capabilities(fleet.state, A) == ("completions", "chat")
        (view,) = fleet.snapshot().models
        assert (view.capabilities, view.chat_template) == (("completions", "chat"), "t")
    fleet = fleet_of(ModelConfig(id=A), capabilities=["completions"])
    assert fleet.catalogue.capabilities(fleet.state, A) == ("completions",)


def test_a_node_that_has_the_model_ready_knows_its_limit_best() -> None:
    fleet = dispatcher_of("n", "m")
    fleet.apply(polled("n", node_model(A, "unloaded", limit=ModelLimit(context=1))), 0.0)
    fleet.apply(polled("m", node_model(A, limit=ModelLimit(context=2))), 0.0)
    assert fleet.catalogue.limit(fleet.state, A).context == 2


def test_memory_is_as_measured_else_as_configured_else_guessed_from_the_files() -> None:
    assert fleet_of().catalogue.need_mb(fleet_of().state, A) == 1100
    kv = fleet_of(ModelConfig(id=A, kv_cache_mb=50))
    assert kv.catalogue.need_mb(kv.state, A) == 1150
    fleet = fleet_of(ModelConfig(id=A, vram_mb=3000))
    assert fleet.catalogue.need_mb(fleet.state, A) == 3000
    fleet.apply(polled("n", node_model(A, mb=2500), version=2), 1.0)
    assert fleet.catalogue.need_mb(fleet.state, A) == 2500
    assert fleet.catalogue.need_mb(fleet.state, B) is None


def test_admission_is_the_models_own_else_everybodys() -> None:
    own = ModelConfig(id=A, max_in_flight=2, max_queue_depth=3, max_wait_s=4.0)
    everybody = AdmissionConfig(max_in_flight=20, max_queue_depth=30, max_wait_s=40.0)
    catalogue = Catalogue(ModelsConfig(models=(own,)), everybody)

    def of(model: ModelId) -> tuple[int, int, float]:
        waits = catalogue.max_wait_s(model)
        return catalogue.max_in_flight(model), catalogue.max_queue_depth(model), waits

    assert of(A) == (2, 3, 4.0)
    assert of(B) == (20, 30, 40.0)


def test_known_are_the_configured_models_first_and_those_of_nodes() -> None:
    fleet = fleet_of(ModelConfig(id=B))
    assert fleet.catalogue.known(fleet.state) == (B, A)


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (ModelConfig(id=A, vram_mb=10_000), None),
        (ModelConfig(id=A, vram_mb=10_001), "it needs 10001 MB on each of 1 device(s)"),
        (ModelConfig(id=A, min_device_vram_mb=10_001), "n has 0 of 1 devices of 10001 MB or more"),
        (ModelConfig(id=A, harness="candle"), "n has no harness 'candle'"),
        (ModelConfig(id=A, quant="q6k"), "n does not convert weights to quant 'q6k'"),
        (ModelConfig(id=A, min_devices=2), "n runs a model on 1 device(s), min_devices is 2"),
    ],
)
def test_why_a_node_can_never_run_a_model(model: ModelConfig, cause: str | None) -> None:
    fleet = fleet_of(model)
    found = fleet.catalogue.cannot_run(fleet.state, A, fleet.state.nodes[N])
    assert found is None if cause is None else cause in (found or "")
    assert fleet.catalogue.feasible_on(fleet.state, A) == ((N,) if cause is None else ())


def test_a_node_that_was_never_reached_gets_the_benefit_of_the_doubt() -> None:
    fleet = dispatcher_of("n", models=(ModelConfig(id=A, vram_mb=99_999),))
    assert fleet.catalogue.cannot_run(fleet.state, A, fleet.state.nodes[N]) is None
    assert fleet.catalogue.feasible_on(fleet.state, A) == ()
