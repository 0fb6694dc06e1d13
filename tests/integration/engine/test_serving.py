"""A model's memory is planned, bounded, refused with the arithmetic; failures stay its own."""

import logging
import weakref
from dataclasses import replace

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import (
    CortexError,
    DeviceFailed,
    ErrorInfo,
    InternalError,
    InvalidRequest,
    ModelLoadFailed,
    OutOfMemory,
)
from cortex_core.ids import DeviceName, ModelId
from cortex_core.neuron_api import ModelProfile
from neurond.actor.torch_backend import TorchBackend
from neurond.engine.device import CpuDevice, open_device
from neurond.engine.engine import EngineRequest
from neurond.engine.kv_cache import KvCache
from neurond.engine.kv_shape import LayerShape, kv_block_bytes
from neurond.memory_plan import BLOCK_TOKENS, PAGED_BLOCK_TOKENS, plan_memory
from neurond.models.model_serving import kv_sizes
from neurond.models.torch_serving import TorchServing
from neurond.protocol import Configure, LoadModel
from neurond.weight_choice import WeightChoice
from tests.fakes.engine_runs import GREEDY, EngineUnderTest, ids, make_engine
from tests.fakes.prepared_models import prepare_model
from tests.fakes.tiny_models import make_tiny_model
from tests.fakes.tokenizers_made import byte_level, prepared

BLOCK_BYTES = 3 * 2 * (16 + 16) * 8 * 4


def sizes(kv_cache_bytes, *, context_tokens=512, max_sequences=4):
    return kv_sizes(
        BLOCK_BYTES,
        context_tokens=context_tokens,
        max_sequences=max_sequences,
        kv_cache_bytes=kv_cache_bytes,
        block_tokens=8,
    )


def test_a_cache_takes_what_is_given():
    found = sizes(11 * BLOCK_BYTES + 5)
    assert found.num_blocks == 10
    assert found.context_tokens == 80
    assert found.size_bytes == 11 * BLOCK_BYTES


def test_a_cache_takes_no_more_than_can_be_used():
    found = sizes(10**12, context_tokens=100, max_sequences=3)
    assert found.num_blocks == 3 * 13
    assert found.context_tokens == 100


def test_a_cache_without_room_for_a_block_is_refused_with_the_arithmetic():
    with pytest.raises(OutOfMemory, match=f"{2 * BLOCK_BYTES - 1}.*{2 * BLOCK_BYTES}"):
        sizes(2 * BLOCK_BYTES - 1)


PLANNED = msgspec.structs.replace(
    prepared(byte_level(), context=32_768), num_layers=16, num_kv_heads=8, head_dim=64
)


@given(
    st.sampled_from([BLOCK_TOKENS, PAGED_BLOCK_TOKENS]),
    st.builds(
        ModelProfile,
        context_tokens=st.none() | st.integers(1, 40_000),
        max_sequences=st.none() | st.integers(1, 64),
        kv_cache_mb=st.none() | st.integers(1, 4000),
    ),
)
def test_what_is_planned_is_what_the_cache_holds(block_tokens, profile):
    try:
        plan = plan_memory(
            PLANNED,
            profile,
            device=DeviceName("cuda-0"),
            free_bytes=24 << 30,
            kind="cuda",
            weights=WeightChoice(profile.dtype or "bfloat16"),
            block_tokens=block_tokens,
        )
    except (InvalidRequest, OutOfMemory):
        return
    found = kv_sizes(
        kv_block_bytes([LayerShape(8, 64, 64)] * 16, plan.block_tokens, 2),
        context_tokens=plan.context_tokens,
        max_sequences=plan.max_sequences,
        kv_cache_bytes=plan.kv_cache_bytes,
        block_tokens=plan.block_tokens,
    )
    assert found.context_tokens == plan.context_tokens
    if profile.context_tokens is not None:
        assert plan.context_tokens == min(profile.context_tokens, PLANNED.context_tokens)
    if profile.max_sequences and profile.context_tokens and not profile.kv_cache_mb:
        per_sequence = -(-plan.context_tokens // block_tokens)
        assert found.num_blocks == profile.max_sequences * per_sequence


def test_a_cache_beyond_the_devices_memory_is_refused(tiny):
    loaded = tiny("llama").loaded
    small = replace(loaded, device=CpuDevice(1))
    with pytest.raises(OutOfMemory, match="0 bytes free"):
        TorchServing(
            small, context_tokens=512, max_sequences=4, kv_cache_bytes=1 << 20, block_tokens=8
        )


def test_a_served_model_can_start_anew_and_is_freed(cpu, tmp_path):
    folder = tmp_path / "llama"
    prepare_model(make_tiny_model("llama"), folder)
    backend = TorchBackend()
    opened = backend.open(Configure(DeviceName("cpu"), 1))
    assert opened.attention_backend == "torch-reference"
    assert 0 < opened.memory_free_bytes < opened.memory_total_bytes
    told: list[float] = []
    served = backend.load(load_command(folder), told.append)
    assert told[-1] > 0.9
    assert served.loaded.weights_id.endswith("-float32-torch-reference")
    assert served.loaded.context_tokens == 512
    assert served.loaded.kv_cache_bytes <= 1 << 20
    first = EngineUnderTest(served.new_engine()).generate([1, 2, 3], 8)
    engine = served.new_engine()
    again = EngineUnderTest(engine).generate([1, 2, 3], 8)
    assert first == again
    # Of the model inside, which has nearly all of them: vectors come from it without the outer one.
    decoder = engine._runner._model.get_decoder()
    weights = [weakref.ref(each) for each in decoder.layers.parameters()]
    assert weights
    free = served.free
    del decoder, engine, served
    free()
    assert [each() for each in weights] == [None] * len(weights)


def load_command(folder, **changes):
    fields = {
        "model_id": ModelId("file:tiny"),
        "model_dir": str(folder),
        "dtype": "float32",
        "context_tokens": 4096,
        "max_sequences": 4,
        "kv_cache_bytes": 1 << 20,
        "block_tokens": 8,
    }
    return LoadModel(**(fields | changes))


def test_a_model_that_does_not_fit_is_refused_with_the_arithmetic(tmp_path):
    folder = tmp_path / "llama"
    prepare_model(make_tiny_model("llama"), folder)
    backend = TorchBackend()
    backend.open(Configure(DeviceName("cpu"), 1))
    with pytest.raises(OutOfMemory, match=r"cannot load file:tiny on cpu: .* bytes .* are free"):
        backend.load(load_command(folder, kv_cache_bytes=1 << 50), lambda progress: None)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    backend = TorchBackend()
    backend.open(Configure(DeviceName("cpu"), 1))
    with pytest.raises(ModelLoadFailed, match=r"model\.json"):
        backend.load(load_command(tmp_path), lambda progress: None)


def test_errors_of_libraries_become_ours():
    backend = TorchBackend()
    ours = OutOfMemory("cannot")
    assert backend.describe(ours) is ours
    assert isinstance(backend.describe(MemoryError("no")), OutOfMemory)
    assert isinstance(backend.describe(torch.OutOfMemoryError("no")), OutOfMemory)
    other = backend.describe(ValueError("what"))
    assert isinstance(other, InternalError)
    assert "ValueError: what" in other.message
    assert not backend.is_poisoned(ValueError("what"))


@pytest.mark.parametrize("name", ["tpu-1", "cuda"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(InternalError, match=name):
        open_device(name, 1, None)


def test_a_torch_without_cuda_is_told(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceFailed, match=r"cannot use cuda-0: .*is built without CUDA"):
        open_device("cuda-0", 1, None)


def test_a_driver_that_is_too_old_is_told(monkeypatch):
    old = "The NVIDIA driver on your system is too old (found version 11040). Please update\nmore"

    def fail() -> None:
        raise RuntimeError(old)

    monkeypatch.setattr(torch.cuda, "init", fail)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    with pytest.raises(DeviceFailed) as caught:
        open_device("cuda-0", 1, None)
    assert "found version 11040" in caught.value.message
    assert "is built for CUDA 13.0 and devices of sm_75, sm_90" in caught.value.message
    assert "more" not in caught.value.message


class Weights:
    """Something that a load holds when it fails."""


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory", OutOfMemory),
        (torch.AcceleratorError, "CUDA error: uncorrectable ECC error", DeviceFailed),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED", DeviceFailed),
        (ValueError, "what", InternalError),
        (ModelLoadFailed, "cannot read", ModelLoadFailed),
    ],
)
def test_a_load_that_fails_says_what_failed_and_keeps_nothing(
    kind, message, expected, tmp_path, monkeypatch
):
    folder = tmp_path / "llama"
    prepare_model(make_tiny_model("llama"), folder)
    held = []

    def fail(*_args):
        weights = Weights()
        weights.itself = weights
        held.append(weakref.ref(weights))
        raise kind(message)

    monkeypatch.setattr("neurond.actor.torch_backend.load_model", fail)
    # What pytest catches of a log it keeps, with all that an exception refers to.
    monkeypatch.setattr(logging.getLogger("neurond.actor.torch_backend"), "disabled", True)
    backend = TorchBackend()
    backend.open(Configure(DeviceName("cpu"), 1))
    with pytest.raises(CortexError, match=message) as caught:
        backend.load(load_command(folder), lambda progress: None)
    assert type(caught.value) is expected
    # The process ends with its device; nothing is given back to that.
    assert (held[0]() is None) == (expected is not DeviceFailed)


def test_a_device_is_lost_though_a_load_took_it_for_the_files_fault(tmp_path, monkeypatch):
    """transformers notes errors of a conversion as text: only what follows tells."""
    folder = tmp_path / "llama"
    prepare_model(make_tiny_model("llama"), folder)

    def fail(*_args):
        raise ModelLoadFailed("cannot read model.safetensors: CUDA error: unspecified")

    def lost(_device):
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr("neurond.actor.torch_backend.load_model", fail)
    backend = TorchBackend()
    backend.open(Configure(DeviceName("cpu"), 1))
    monkeypatch.setattr(CpuDevice, "settle", lost)
    with pytest.raises(DeviceFailed, match="unspecified launch failure"):
        backend.load(load_command(folder), lambda progress: None)


def test_a_memory_budget_bounds_what_is_free():
    whole = CpuDevice(None).memory_info()
    assert 0 < whole.free_bytes < whole.total_bytes
    assert CpuDevice(1000).memory_info().total_bytes == 1000
    assert CpuDevice(1000).memory_info().free_bytes == 0


def test_page_cache_that_is_needed_is_not_free(monkeypatch):
    monkeypatch.setattr("neurond.engine.device.borrowed_bytes", lambda: 1 << 60)
    assert CpuDevice(None).memory_info().free_bytes == 0


def test_a_new_blocks_former_content_is_gone():
    cache = KvCache(
        [LayerShape(1, 2, 2), LayerShape(1, 3, 1), LayerShape(1, 2, 2)],
        num_blocks=4,
        block_tokens=2,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    for layer in range(3):
        for pages in cache.pages(layer):
            pages.fill_(torch.nan)
    cache.clear(torch.tensor([1, 3]))
    for layer in range(3):
        for pages in cache.pages(layer):
            assert pages.shape[0] == cache.num_blocks + 1
            assert torch.equal(pages.isnan().any((1, 2, 3)), torch.tensor([1, 0, 1, 0, 1]).bool())


def test_a_request_with_damaged_numbers_fails_alone_and_leaves_nothing_behind(tiny):
    """One token's embedding is NaN: who uses it fails, before and after all others are right."""
    loaded = tiny("qwen3").loaded
    bad, prompts = 13, [[1, 2, 3], [7, 8, 9, 10, 11, 12]]
    expected = [make_engine(loaded).generate(prompt, 12) for prompt in prompts]
    assert not any(bad in tokens for tokens in expected)
    embedding = loaded.model.get_input_embeddings().weight
    kept = embedding[bad].clone()
    embedding[bad] = torch.nan
    try:
        under_test = make_engine(loaded, num_blocks=12, block_tokens=4)
        for _ in range(3):
            streams = [under_test.submit(prompt, 12) for prompt in prompts]
            under_test.engine.add(EngineRequest("damaged", 999, [1, 2, bad, 4, 5], GREEDY, 12, 1))
            tokens, failed = run(under_test)
            assert [error.code for error in failed] == ["internal_error"]
            assert [tokens[stream] for stream in streams] == expected
    finally:
        embedding[bad] = kept


def run(under_test: EngineUnderTest) -> tuple[dict[int, list[int]], list[ErrorInfo]]:
    tokens: dict[int, list] = {}
    failed: list[ErrorInfo] = []
    while under_test.engine.has_work():
        output = under_test.engine.step()
        failed += [error for _, error in output.failed]
        for stream, token, _ in output.tokens:
            tokens.setdefault(stream, []).append(token)
    return {stream: ids(found) for stream, found in tokens.items()}, failed


def test_the_cache_of_a_model_is_at_most_what_its_context_needs(tiny):
    loaded = tiny("llama").loaded
    serving = TorchServing(
        loaded, context_tokens=10**6, max_sequences=2, kv_cache_bytes=10**9, block_tokens=16
    )
    assert serving.sizes.context_tokens == 512
    assert serving.sizes.num_blocks == 2 * 32
