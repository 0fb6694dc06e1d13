"""Decodes are recorded once and replayed for other sequences, with what would be computed anew."""

from dataclasses import replace

import pytest
import torch

from cortex_core.canonical import SamplingParams
from neurond.attention.flash2 import Flash2Backend
from neurond.engine.config import SchedulerConfig
from neurond.engine.decode_graphs import NotRecordable, graph_sizes
from neurond.engine.device import CpuDevice
from neurond.engine.engine import Engine
from neurond.engine.kv_cache import KvCache
from neurond.engine.rehearsal import rehearsal
from neurond.engine.runner import ModelRunner
from neurond.models import torch_serving
from neurond.models.loader import load_model
from tests.fakes import flash_attn_checked, step_recorder
from tests.fakes.engine_runs import GREEDY, EngineUnderTest, ids
from tests.fakes.prepared_models import prepare_model
from tests.fakes.step_recorder import FakeRecorder
from tests.fakes.tiny_models import TINY_CONFIGS, make_tiny_model

PAGE = 256
DRAWN = SamplingParams(temperature=1.0, top_k=20, top_p=0.95, ignore_eos=True, logprobs=2)
PROMPTS = [list(range(1, 6)), [9] * 40, list(range(3, 300)), [7, 8]]


@pytest.fixture
def loaded(request, tmp_path, cpu):
    model = make_tiny_model(request.param)
    manifest = prepare_model(model, tmp_path / request.param)
    return load_model(tmp_path / request.param, manifest, "bfloat16", cpu, lambda progress: None)


def runner_of(loaded) -> ModelRunner:
    cache = KvCache(
        [layer.shape for layer in loaded.layers],
        num_blocks=16,
        block_tokens=PAGE,
        dtype=loaded.dtype,
        device=loaded.device.torch_device,
    )
    backend = Flash2Backend(
        flash_attn_checked.flash_attn_varlen_func, step_recorder.flash_attn_with_kvcache
    )
    return ModelRunner(loaded.model, loaded.device.torch_device, backend, cache)


def engine_of(loaded, recorder: FakeRecorder | None) -> EngineUnderTest:
    runner = runner_of(loaded)
    if recorder is not None:
        runner.record_decodes(recorder, max_sequences=3, context_tokens=512)
    return EngineUnderTest(
        Engine(
            runner,
            SchedulerConfig(
                num_blocks=16,
                context_tokens=512,
                block_tokens=PAGE,
                max_sequences=4,
                step_tokens=64,
            ),
        )
    )


def run(under_test: EngineUnderTest) -> list[list[int]]:
    """Requests of different lengths, so that steps of 4 to 1 sequences come, and mixed ones."""
    streams = [
        under_test.submit(prompt, 5 + 4 * index, DRAWN if index % 2 else GREEDY)
        for index, prompt in enumerate(PROMPTS)
    ]
    tokens = under_test.finish()
    return [ids(tokens[stream]) for stream in streams]


@pytest.mark.parametrize("loaded", TINY_CONFIGS, indirect=True)
def test_a_replayed_step_computes_what_a_submitted_one_does(loaded):
    recorder = FakeRecorder()
    expected = run(engine_of(loaded, None))
    assert run(engine_of(loaded, recorder)) == expected
    assert recorder.num_recorded == 3  # of 1, 2 and 3 sequences
    assert recorder.num_replayed > 10


@pytest.mark.parametrize("loaded", ["llama"], indirect=True)
def test_what_graphs_write_beside_their_sequences_is_read_by_nobody(loaded):
    """With NaN there, what is chosen stays the same."""
    expected = run(engine_of(loaded, None))
    under_test = engine_of(loaded, FakeRecorder())
    cache = under_test.engine._runner._cache
    for layer in range(len(loaded.layers)):
        for pages in cache.pages(layer):
            pages[cache.blank_block] = torch.nan
    assert run(under_test) == expected


class Keeping(FakeRecorder):
    """Keeps what it has recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.graphs = []

    def record(self, compute):
        self.graphs.append(super().record(compute))
        return self.graphs[-1]


@pytest.mark.parametrize("loaded", ["llama"], indirect=True)
def test_graphs_of_all_sizes_have_their_logits_in_one_place(loaded):
    recorder = Keeping()
    runner_of(loaded).record_decodes(recorder, max_sequences=9, context_tokens=512)
    outputs = [graph.output for graph in recorder.graphs]
    assert [len(output) for output in outputs] == [9, 8, 4, 2, 1]
    assert len({output.data_ptr() for output in outputs}) == 1


@pytest.mark.parametrize("loaded", ["llama"], indirect=True)
def test_a_step_that_reads_back_cannot_be_recorded(loaded):
    runner = runner_of(loaded)
    norm = loaded.model.model.norm
    norm.register_forward_hook(lambda module, args, output: output * float(output.amax() > -1))
    with pytest.raises(NotRecordable):
        runner.record_decodes(FakeRecorder(), max_sequences=3, context_tokens=512)


@pytest.mark.parametrize("loaded", ["llama", "gemma2-softcap"], indirect=True)
def test_a_rehearsal_leaves_everything_as_it_was(loaded):
    runner = runner_of(loaded)
    runner.rehearse(600, 5, 512)
    for layer in range(len(loaded.layers)):
        for pages in runner._cache.pages(layer):
            assert not pages.any()


@pytest.mark.parametrize("loaded", ["llama"], indirect=True)
def test_a_rehearsal_asks_for_no_position_that_a_model_has_not(loaded):
    """On a device, one that looks positions up in a table would be lost with it."""
    batch = rehearsal(runner_of(loaded)._cache, 600, 5, 100)
    assert max(batch.positions) == 99
    assert (batch.num_tokens, sum(batch.seq_lens_k)) == (600, 600)


class FakeGpu(CpuDevice):
    """The host, but for what is asked of a GPU when a model is loaded."""

    compute_capability = (9, 0)

    def __init__(self, recorder) -> None:
        super().__init__(None)
        self._recorder = recorder

    def recorder(self):
        return self._recorder


class Refusing:
    def record(self, compute):
        raise NotRecordable("a tensor is read back")


def serving_of(loaded, recorder, monkeypatch, speculation=None) -> torch_serving.TorchServing:
    def load() -> Flash2Backend:
        return Flash2Backend(
            flash_attn_checked.flash_attn_varlen_func, step_recorder.flash_attn_with_kvcache
        )

    monkeypatch.setattr(torch_serving, "load_flash2", load)
    return torch_serving.TorchServing(
        replace(loaded, device=FakeGpu(recorder)),
        context_tokens=512,
        max_sequences=2,
        kv_cache_bytes=1 << 22,
        block_tokens=16,
        speculation=speculation,
    )


def serve(loaded, recorder, monkeypatch) -> list[int]:
    made = serving_of(loaded, recorder, monkeypatch)
    assert made.sizes.block_tokens == PAGE
    assert made.weights_id.endswith("-bfloat16-flash-attn-2")
    return EngineUnderTest(made.new_engine()).generate([1, 2, 3], 12)


@pytest.mark.parametrize("loaded", ["qwen3"], indirect=True)
def test_a_model_is_recorded_when_it_is_loaded(loaded, monkeypatch, caplog):
    recorder = FakeRecorder()
    said = serve(loaded, recorder, monkeypatch)
    assert (recorder.num_recorded, recorder.num_replayed) == (2, 11)
    assert not caplog.records
    assert serve(loaded, Refusing(), monkeypatch) == said
    assert "decodes not recorded as graphs" in caplog.text


@pytest.mark.parametrize(("speculation", "max_rows"), [(None, 32), ("ngram", 48)])
@pytest.mark.parametrize("loaded", ["llama"], indirect=True)
def test_a_load_rehearses_as_many_rows_as_a_step_may_have(
    loaded, speculation, max_rows, monkeypatch
):
    """Of two sequences: drafts that are checked and prompts that are scored take more of them."""
    rehearsed = []

    def note(module, args, output) -> None:
        rehearsed.append(tuple(output.logits.shape[:2]))

    loaded.model.register_forward_hook(note)
    engine = serving_of(loaded, None, monkeypatch, speculation).new_engine()
    assert rehearsed == [(1, max_rows)]
    assert engine.scheduler.config.max_rows == max_rows


def test_sizes_end_with_the_largest_and_leave_little_to_pad():
    assert graph_sizes(1) == [1]
    assert graph_sizes(3) == [1, 2, 3]
    assert graph_sizes(64) == [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64]
    assert graph_sizes(1000)[-2:] == [224, 256]
    for count in range(1, 257):
        size = next(size for size in graph_sizes(256) if size >= count)
        assert size - count < max(8, count / 2, 1)


def test_a_device_records_unless_it_computes_itself(cpu):
    assert cpu.recorder() is None
