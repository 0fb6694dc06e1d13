"""Where models go by measured memory, seen through the dispatcher's loads and refusals."""

from typing import Any

import pytest

from cortex_core.errors import NodeUnavailable
from cortex_core.ids import ModelId, NodeName
from cortexd.config import ModelConfig
from cortexd.fleet.decisions import Load
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.events import InFlightRead, NodeFailed
from cortexd.fleet.protocol import Rejected
from tests.fakes.fleet_world import answers, ask, dispatcher_of, loads, node_model, polled

A, B, C = ModelId("file:a"), ModelId("file:b"), ModelId("file:c")
NOW = 1000.0


def cold(model: ModelId = A, mb: int | None = None) -> Any:
    return node_model(model, "unloaded", mb=mb or 1)


def fleet_of(*polls: Any, **options: Any) -> Dispatcher:
    fleet = dispatcher_of(*(poll.node for poll in polls), **options)
    for poll in polls:
        fleet.apply(poll, 0.0)
    return fleet


def load_of(fleet: Dispatcher, model: ModelId = A) -> Load:
    (order,) = loads(ask(fleet, model, f"for-{model}", NOW))
    return order.load


def error_of(fleet: Dispatcher, model: ModelId = A) -> Any:
    rejected = answers(ask(fleet, model, "r", NOW))["r"]
    assert isinstance(rejected, Rejected)
    return rejected.error


def test_the_tightest_device_that_fits_is_taken() -> None:
    fleet = fleet_of(polled("n", cold(mb=4000), vram_mb=(24_000, 8_000, 3_000)))
    assert load_of(fleet).devices == ("cuda-1",)


def test_the_emptiest_device_is_taken_where_the_size_is_unknown() -> None:
    fleet = fleet_of(polled("n", vram_mb=(3_000, 24_000, 8_000)), models=(ModelConfig(id=A),))
    assert load_of(fleet).devices == ("cuda-1",)


def test_a_node_with_the_files_goes_before_one_without() -> None:
    fleet = fleet_of(polled("n", vram_mb=3_000), polled("m", cold(mb=1000), vram_mb=24_000))
    assert load_of(fleet).node == "m"


def test_a_pinned_node_goes_first_even_if_others_have_to_give_way() -> None:
    model = ModelConfig(id=A, vram_mb=5000, pinned_on=(NodeName("m"),))
    fleet = fleet_of(polled("n", cold()), polled("m", cold()), models=(model,))
    assert load_of(fleet).node == "m"


def test_what_was_measured_counts_more_than_what_was_configured() -> None:
    model = ModelConfig(id=A, vram_mb=100)
    fleet = fleet_of(polled("n", node_model(A, mb=7000), vram_mb=9000), models=(model,))
    fleet.apply(polled("n", cold(), node_model(B, mb=5000), vram_mb=9000, version=2), 1.0)
    assert load_of(fleet).evict == ("n/file:b",)


def test_a_load_under_way_takes_its_memory_before_it_is_measured() -> None:
    fleet = fleet_of(polled("n", cold(A, 6000), cold(B, 6000), vram_mb=10_000))
    load_of(fleet, A)
    assert loads(ask(fleet, B, "b", NOW)) == []


def test_the_longest_unused_gives_way_and_no_more_than_needed() -> None:
    here = (node_model(B, mb=4000), node_model(C, mb=4000), cold(A, 3500))
    fleet = fleet_of(polled("n", *here, vram_mb=8000))
    fleet.count(InFlightRead({0: 0, 1: 0}, {0: 9, 1: 0}), 500.0)
    assert load_of(fleet).evict == ("n/file:c",)


@pytest.mark.parametrize(("own", "evict"), [(100, ("n/file:b",)), (99, None)])
def test_classes_above_are_not_displaced(own: int, evict: tuple[str, ...] | None) -> None:
    models = (
        ModelConfig(id=A, residency_priority=own),
        ModelConfig(id=B, residency_priority=100),
    )
    here = (node_model(B, mb=8000), cold(A, 4000))
    fleet = fleet_of(polled("n", *here, vram_mb=8000), models=models, strategy="priority")
    if evict is None:
        assert error_of(fleet).code == "service_unavailable"
    else:
        assert load_of(fleet).evict == evict


def test_pinned_models_are_never_displaced() -> None:
    models = (ModelConfig(id=B, pinned_on=(NodeName("n"),)),)
    here = (node_model(B, mb=8000), cold(A, 4000))
    error = error_of(fleet_of(polled("n", *here, vram_mb=8000), models=models))
    assert "held by file:b" in error.message
    assert error.retry_after_s


def test_the_last_of_min_replicas_is_not_displaced() -> None:
    models = (ModelConfig(id=B, min_replicas=1),)
    here = (node_model(B, mb=8000), cold(A, 4000))
    assert error_of(fleet_of(polled("n", *here, vram_mb=8000), models=models))


def test_a_busy_model_is_waited_for() -> None:
    here = (node_model(B, mb=8000), cold(A, 4000))
    fleet = fleet_of(polled("n", *here, vram_mb=8000))
    fleet.count(InFlightRead({0: 1}, {0: 1}), NOW)
    assert ask(fleet, A, "r", NOW) != []
    assert answers(fleet.tick(NOW + 1)) == {}


def test_a_model_over_two_devices_needs_room_on_both() -> None:
    model = ModelConfig(id=A, vram_mb=12_000, min_devices=2)
    on_one = node_model(B, mb=5000, device="cuda-1")
    node = polled("n", on_one, vram_mb=(8000, 8000), max_tensor_parallel=2)
    load = load_of(fleet_of(node, models=(model,)))
    assert (sorted(load.devices), load.evict) == (["cuda-0", "cuda-1"], ("n/file:b",))


def test_devices_below_the_floor_are_not_used() -> None:
    model = ModelConfig(id=A, vram_mb=1000, min_device_vram_mb=20_000)
    fleet = fleet_of(polled("n", vram_mb=(8000, 24_000)), models=(model,))
    assert load_of(fleet).devices == ("cuda-1",)


def test_too_large_for_every_device_is_said_with_numbers() -> None:
    error = error_of(fleet_of(polled("n", cold(A, 20_000), vram_mb=8000)))
    assert error.code == "out_of_memory"
    assert "22000 MB" in error.message
    assert "8000 MB" in error.message
    assert error.retry_after_s is None


def test_a_harness_that_no_node_has_is_named() -> None:
    fleet = fleet_of(polled("n"), models=(ModelConfig(id=A, harness="other"),))
    error = error_of(fleet)
    assert (error.code, "'other'" in error.message) == ("model_load_failed", True)


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (ModelConfig(id=A, quant="q6k"), "n does not convert weights to quant 'q6k'"),
        (ModelConfig(id=A, min_devices=2), "n runs a model on 1 device(s), min_devices is 2"),
    ],
)
def test_a_node_is_not_asked_for_what_it_cannot_do(model: ModelConfig, cause: str) -> None:
    here = polled("n", cold(), vram_mb=(8000, 8000))
    error = error_of(fleet_of(here, models=(model,)))
    assert (error.code, error.retry_after_s) == ("model_load_failed", None)
    assert cause in error.message

    able = polled("m", cold(), vram_mb=(8000, 8000), quants=("q6k",), max_tensor_parallel=2)
    assert load_of(fleet_of(here, able, models=(model,))).node == "m"


def test_no_neuron_at_all_is_said() -> None:
    fleet = dispatcher_of(models=(ModelConfig(id=A),))
    assert "no neuron is configured" in error_of(fleet).message


def test_a_node_that_was_never_reached_is_waited_for_and_then_named() -> None:
    fleet = dispatcher_of("n", models=(ModelConfig(id=A),), now=NOW)
    fleet.apply(NodeFailed(NodeName("n"), NodeUnavailable("connection refused")), NOW)
    assert answers(ask(fleet, A, "r", NOW)) == {}
    ended = answers(fleet.tick(NOW + 15))["r"]
    assert isinstance(ended, Rejected)
    assert "n: connection refused" in ended.error.message


def test_a_draining_node_gets_no_loads() -> None:
    fleet = fleet_of(polled("n", cold(), draining=True), polled("m", cold()))
    assert load_of(fleet).node == "m"


def test_a_sleeping_replica_is_woken_where_it_sleeps() -> None:
    asleep = node_model(A, "asleep")
    fleet = fleet_of(polled("n", cold(), vram_mb=24_000), polled("m", asleep))
    assert load_of(fleet).node == "m"


def test_requests_wait_for_a_node_that_shuts_down_and_may_be_restarting() -> None:
    fleet = fleet_of(polled("n", cold(), draining=True))
    assert answers(ask(fleet, A, "r", NOW)) == {}
    reborn = polled("n", cold(), boot="boot-1", at=NOW + 2)
    assert [order.model_id for order in loads(fleet.apply(reborn, NOW + 2))] == [A]
