"""Whole steps on CUDA tensors that have shapes and devices but no data.

A fake tensor refuses to mix devices and to be read back, so a step that passes has no host sync
and lets no host tensor in among the device's. Streams and graphs are not reached by this.
"""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from neurond.attention import reference
from neurond.attention.flash2 import Flash2Backend
from neurond.attention.reference import ReferenceBackend
from neurond.attention.varlen import TorchVarlenBackend
from neurond.engine.device import CudaDevice, MemoryInfo
from neurond.engine.kv_cache import KvCache
from neurond.engine.kv_shape import LayerShape
from neurond.engine.rehearsal import rehearsal
from neurond.engine.runner import ModelRunner
from neurond.models.attention_hook import ATTENTION_NAME, register_attention
from tests.fakes.fake_cuda import fake_cuda
from tests.fakes.step_batches import PAGE, STEPS, batch_of
from tests.fakes.tiny_models import TINY_CONFIGS, VOCAB_SIZE

CUDA = torch.device("cuda", 0)


def varlen_shapes(q, k, v, cu_seqlens_q, cu_seqlens_k, max_q, max_k, *, block_table, **options):
    assert max_q > 1
    for tensor in (q, k, v, cu_seqlens_q, cu_seqlens_k, block_table):
        assert tensor.device == CUDA
    assert options["return_attn_probs"]
    lse = torch.empty(q.shape[1], q.shape[0], dtype=torch.float32, device=q.device)
    return torch.empty_like(q), lse, torch.empty(0, device=q.device)


def kvcache_shapes(q, k_cache, v_cache, *, cache_seqlens, block_table, **options):
    for tensor in (q, k_cache, v_cache, cache_seqlens, block_table):
        assert tensor.device == CUDA
    assert options["return_softmax_lse"]
    lse = torch.empty(q.shape[0], q.shape[2], 1, dtype=torch.float32, device=q.device)
    return torch.empty_like(q), lse


BACKENDS = {
    "flash-attn-2": lambda: Flash2Backend(varlen_shapes, kvcache_shapes),
    "torch-varlen": TorchVarlenBackend,
    "torch-reference": ReferenceBackend,
}


def meta_model(name: str):
    """A tiny model without memory, in bfloat16."""
    register_attention()
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            TINY_CONFIGS[name](), dtype=torch.bfloat16, attn_implementation=ATTENTION_NAME
        )


def move_to_cuda(model) -> int:
    """Give a model fake tensors on the device; return its number of attention layers."""
    for module in model.modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            value = torch.empty(parameter.shape, dtype=parameter.dtype, device=CUDA)
            setattr(module, key, torch.nn.Parameter(value, requires_grad=False))
        for key, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, key, torch.empty(buffer.shape, dtype=buffer.dtype, device=CUDA))
    layers = [module for module in model.modules() if hasattr(module, "layer_idx")]
    attention = [module for module in layers if hasattr(module, "q_proj")]
    for index, module in enumerate(attention):
        module.kv_layer = index
    return len(attention)


def fake_runner(model, backend, vision=None) -> ModelRunner:
    """A runner of a model that is on meta, where CUDA is faked."""
    num_layers = move_to_cuda(model)
    cache = KvCache(
        [LayerShape(2, 16, 16)] * num_layers,
        num_blocks=16,
        block_tokens=PAGE,
        dtype=torch.bfloat16,
        device=CUDA,
    )
    return ModelRunner(model, CUDA, backend, cache, vision)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_a_step_never_waits_for_the_device(name, step, backend, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    model = meta_model(name).eval()
    with fake_cuda(), torch.no_grad():
        runner = fake_runner(model, BACKENDS[backend]())
        lens, num_decodes = STEPS[step]
        choices = runner.submit(batch_of(lens, num_decodes))
        assert choices.tokens.device == CUDA
        assert choices.tokens.shape == (len(lens),)
        assert choices.highest.device == CUDA


class CallingRecorder:
    """Calls what it should record, once for each size and again for each step."""

    def record(self, compute):
        graph = SimpleNamespace(output=compute(), replayed=0)

        def replay():
            graph.output.copy_(compute())
            graph.replayed += 1

        graph.replay = replay
        self.largest = max(getattr(self, "largest", graph), graph, key=lambda one: len(one.output))
        return graph


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_a_step_to_record_never_waits_for_the_device(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    recorder = CallingRecorder()
    lens, num_decodes = STEPS["decode"]
    model = meta_model(name).eval()
    with fake_cuda(), torch.no_grad():
        runner = fake_runner(model, BACKENDS["flash-attn-2"]())
        runner.record_decodes(recorder, max_sequences=6, context_tokens=1000)
        with torch.inference_mode():
            choices = runner.submit(batch_of(lens, num_decodes))
        assert recorder.largest.output.shape == (6, VOCAB_SIZE)
        assert choices.tokens.device == CUDA
        assert choices.tokens.shape == (len(lens),)
        assert recorder.largest.replayed == 0
        assert choices.highest.device == CUDA


@pytest.mark.parametrize("two_way_tokens", [0, 40])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rehearsal_never_waits_for_the_device(backend, two_way_tokens, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    model = meta_model("qwen3-moe").eval()
    with fake_cuda(), torch.no_grad():
        blind = SimpleNamespace(inputs=lambda with_images, **inputs: inputs)
        runner = fake_runner(model, BACKENDS[backend](), blind)
        choices = runner.submit(rehearsal(runner._cache, 600, 300, 512, two_way_tokens))
        assert choices.tokens.shape == (300,)


def test_the_scores_of_a_prompt_are_cut_on_a_device():
    with fake_cuda():
        query = torch.empty((512, 32, 128), device=CUDA)
        assert reference.queries_at_once(query, 1000) == 512 + 12
        assert reference.queries_at_once(query, 32_768) == 16
        assert reference.queries_at_once(query, 10**7) == 1
        assert reference.queries_at_once(query.new_empty(query.shape, device="cpu"), 10**7) == 512


def test_reading_a_result_back_is_noticed():
    with fake_cuda(), pytest.raises(RuntimeError):
        torch.empty(3, device=CUDA).sum().item()


def test_the_memory_of_a_device_counts_what_torch_has_cached(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (300, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 400)
    assert CudaDevice("cuda-0", None).memory_info() == MemoryInfo(1000, 400)
    assert CudaDevice("cuda-0", 600).memory_info() == MemoryInfo(600, 200)
    assert CudaDevice("cuda-0", 300).memory_info() == MemoryInfo(300, 0)
