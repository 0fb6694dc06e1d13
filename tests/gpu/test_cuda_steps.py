"""Whole steps on a CUDA device: submitted without waiting, recorded, and beside a load."""

import threading

import pytest
import torch

from neurond.engine.batch import Row, ScheduledBatch
from neurond.engine.decode_graphs import NotRecordable
from neurond.engine.device import open_device
from neurond.engine.kv_cache import KvCache
from neurond.engine.runner import ModelRunner
from neurond.models.loader import LoadedModel, load_model
from neurond.models.torch_serving import TorchServing, attention_backend
from tests.fakes.engine_runs import GREEDY
from tests.fakes.prepared_models import prepare_model
from tests.fakes.step_batches import PAGE, STEPS, batch_of
from tests.fakes.tiny_models import TINY_CONFIGS, make_tiny_model

pytestmark = pytest.mark.gpu

CONTEXT = 2 * PAGE


@pytest.fixture(scope="module")
def device():
    return open_device("cuda-0", 2, None)


@pytest.fixture
def loaded(request, device, tmp_path) -> LoadedModel:
    dtype = "bfloat16" if device.compute_capability[0] >= 8 else "float16"
    manifest = prepare_model(make_tiny_model(request.param), tmp_path / "model")
    return load_model(tmp_path / "model", manifest, dtype, device, lambda progress: None)


def runner_of(loaded: LoadedModel) -> ModelRunner:
    cache = KvCache(
        [layer.shape for layer in loaded.layers],
        num_blocks=16,
        block_tokens=PAGE,
        dtype=loaded.dtype,
        device=loaded.device.torch_device,
    )
    backend = attention_backend(loaded)
    return ModelRunner(loaded.model, loaded.device.torch_device, backend, cache)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("loaded", TINY_CONFIGS, indirect=True)
def test_submitting_a_step_never_waits(loaded, step):
    runner = runner_of(loaded)
    lens, num_decodes = STEPS[step]
    with torch.inference_mode():
        runner.execute(batch_of(lens, num_decodes))  # what is done once may wait
        torch.cuda.set_sync_debug_mode("error")
        try:
            choices = runner.submit(batch_of(lens, num_decodes))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert choices.highest.isfinite().all()


@pytest.mark.parametrize("loaded", TINY_CONFIGS, indirect=True)
def test_a_recorded_step_computes_what_a_submitted_one_does(loaded):
    if not attention_backend(loaded).can_be_recorded:
        pytest.skip("flash-attn 2 is not installed, or not a version that can be recorded")
    plain, recorded = runner_of(loaded), runner_of(loaded)
    recorded.record_decodes(loaded.device.recorder(), max_sequences=6, context_tokens=CONTEXT)
    lens, num_decodes = STEPS["decode"]
    for step in (STEPS["mixed"], (lens, num_decodes), (lens[:1], 1), (lens[:3], 3)):
        with torch.inference_mode():
            expected, found = (runner.submit(batch_of(*step)) for runner in (plain, recorded))
        torch.testing.assert_close(found.highest, expected.highest, atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize("loaded", ["llama"], indirect=True)
def test_a_model_is_loaded_and_recorded_while_another_steps(loaded, tmp_path):
    manifest = prepare_model(make_tiny_model("qwen3"), tmp_path / "other")
    made: list[TorchServing] = []

    def load() -> None:
        dtype = str(loaded.dtype).removeprefix("torch.")
        other = load_model(tmp_path / "other", manifest, dtype, loaded.device, lambda done: None)
        made.append(
            TorchServing(
                other,
                context_tokens=CONTEXT,
                max_sequences=16,
                kv_cache_bytes=1 << 26,
                block_tokens=PAGE,
            )
        )
        loaded.device.settle()

    runner = runner_of(loaded)
    lens, num_decodes = STEPS["mixed"]
    expected = [token.token_id for token in runner.execute(greedy(batch_of(lens, num_decodes)))]
    thread = threading.Thread(target=load)
    thread.start()
    while thread.is_alive():
        found = runner.execute(greedy(batch_of(lens, num_decodes)))
        assert [token.token_id for token in found] == expected
    thread.join()
    assert made


def test_a_recording_that_is_broken_off_leaves_memory_to_be_given_back(device):
    ones = torch.ones(4, device=device.torch_device)
    with pytest.raises(NotRecordable):
        device.recorder().record(lambda: ones * float(ones.sum()))
    device.settle()
    before = torch.cuda.memory_reserved()
    torch.empty(1 << 28, dtype=torch.uint8, device=device.torch_device)
    assert torch.cuda.memory_reserved() > before
    device.settle()
    assert torch.cuda.memory_reserved() <= before


def greedy(batch: ScheduledBatch) -> ScheduledBatch:
    batch.rows = [
        Row(0, 0, 1, GREEDY, row.token_ids, row.num_prompt_tokens, None) for row in batch.rows
    ]
    return batch
