"""What is counted, under which labels, in which form."""

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from cortex_core.errors import ModelNotFound
from cortex_core.ids import DeviceName, ModelId
from cortex_core.neuron_api import (
    Activation,
    DeviceHealth,
    DraftUse,
    Health,
    KvUse,
    NodeModel,
)
from neurond.metrics import GenerationMetrics, NodeCollector, exposition, make_registry

MODEL = ModelId("pypi:m")


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, {"model": MODEL} | labels)


def times(*moments: float) -> Callable[[], float]:
    """Return a clock that shows these in turn."""
    left = iter(moments)
    return lambda: next(left)


def test_times_run_from_the_request_to_its_tokens() -> None:
    registry = CollectorRegistry()
    clock = times(100.0, 100.5, 100.6, 100.9, 101.5)
    with GenerationMetrics(registry).request(MODEL, clock) as meter:
        meter.prompt(7)
        meter.cached(4)
        for _ in range(3):
            meter.token()
        meter.completed(3)
    assert value(registry, "neuron_request_duration_seconds_sum") == 1.5
    assert value(registry, "neuron_time_to_first_token_seconds_sum") == 0.5
    assert value(registry, "neuron_inter_token_latency_seconds_count") == 2
    assert value(registry, "neuron_inter_token_latency_seconds_sum") == pytest.approx(0.4)
    buckets = {
        le: value(registry, "neuron_inter_token_latency_seconds_bucket", le=le)
        for le in ("0.075", "0.1", "0.25", "0.5", "+Inf")
    }
    assert buckets == {"0.075": 0, "0.1": 1, "0.25": 1, "0.5": 2, "+Inf": 2}
    assert value(registry, "neuron_requests_total", outcome="completed") == 1
    assert value(registry, "neuron_prompt_tokens_total") == 7
    assert value(registry, "neuron_cached_prompt_tokens_total") == 4
    assert value(registry, "neuron_completion_tokens_total") == 3


def test_a_name_that_no_model_has_becomes_no_label() -> None:
    registry = CollectorRegistry()
    meter = GenerationMetrics(registry).request(ModelId("evil name"), times(0.0, 1.0))
    with pytest.raises(ModelNotFound), meter:
        raise ModelNotFound("cannot generate: there is no such model")
    text = exposition(registry).decode()
    assert "evil name" not in text
    assert 'neuron_requests_total{model="unknown",outcome="model_not_found"} 1.0' in text


def test_an_unfinished_request_was_cancelled() -> None:
    registry = CollectorRegistry()
    meter = GenerationMetrics(registry).request(MODEL, times(0.0, 2.5))
    meter.prompt(1)
    with pytest.raises(GeneratorExit), meter:
        raise GeneratorExit
    assert value(registry, "neuron_request_duration_seconds_sum") == 2.5
    assert value(registry, "neuron_requests_total", outcome="cancelled") == 1


def test_what_is_no_error_of_ours_is_an_internal_one() -> None:
    registry = CollectorRegistry()
    meter = GenerationMetrics(registry).request(MODEL, times(0.0, 1.0))
    meter.prompt(1)
    with pytest.raises(KeyError), meter:
        raise KeyError
    assert value(registry, "neuron_requests_total", outcome="internal_error") == 1


def test_devices_and_models_are_gauges_read_at_each_scrape() -> None:
    device = DeviceHealth(0, DeviceName("cpu"), "ready", 10, 20, restarts=2)
    health = Health(5.0, 1, draining=False, devices=[device], activation=Activation("idle"))
    kv = KvUse(blocks=64, used=16, cached=8, preemptions=5)
    drafts = DraftUse(drafted=30, accepted=20)
    models = [
        NodeModel(
            MODEL, "torch", "ready", vram_used_mb=3, running=2, waiting=1, kv=kv, drafts=drafts
        )
    ]
    registry = make_registry()
    registry.register(NodeCollector(lambda: health, lambda: models))
    text = exposition(registry).decode()
    for line in (
        'neuron_device_vram_free_mb{device="cpu"} 20.0',
        'neuron_device_restarts_total{device="cpu"} 2.0',
        'neuron_device_up{device="cpu"} 1.0',
        f'neuron_requests_running{{model="{MODEL}"}} 2.0',
        f'neuron_requests_waiting{{model="{MODEL}"}} 1.0',
        f'neuron_model_ready{{model="{MODEL}"}} 1.0',
        f'neuron_kv_blocks{{model="{MODEL}"}} 64.0',
        f'neuron_kv_blocks_used{{model="{MODEL}"}} 16.0',
        f'neuron_kv_blocks_cached{{model="{MODEL}"}} 8.0',
        f'neuron_preemptions_total{{model="{MODEL}"}} 5.0',
        f'neuron_draft_tokens_total{{model="{MODEL}"}} 30.0',
        f'neuron_accepted_draft_tokens_total{{model="{MODEL}"}} 20.0',
    ):
        assert line in text
    models.clear()
    assert "neuron_requests_running{" not in exposition(registry).decode()
