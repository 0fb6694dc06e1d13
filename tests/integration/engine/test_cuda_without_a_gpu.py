"""Whole steps on CUDA tensors that have shapes and devices but no data.

A fake tensor refuses to mix devices and to be read back, so a step that passes has no host sync
and lets no host tensor in among the device's. Streams and graphs are not reached by this.
"""

from array import array
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM

from cortex_core.canonical import SamplingParams
from neurond.attention.flash2 import Flash2Backend
from neurond.attention.reference import ReferenceBackend
from neurond.engine.batch import Row, ScheduledBatch, TokenCounts
from neurond.engine.device import CudaDevice, MemoryInfo
from neurond.engine.kv_cache import KvCache
from neurond.engine.kv_shape import LayerShape
from neurond.engine.runner import ModelRunner
from neurond.models.attention_hook import ATTENTION_NAME, register_attention
from tests.fakes.fake_cuda import fake_cuda
from tests.fakes.tiny_models import TINY_CONFIGS, VOCAB_SIZE

CUDA = torch.device("cuda", 0)
PAGE = 256
SAMPLINGS = [
    SamplingParams(temperature=0.0),
    SamplingParams(top_k=5, top_p=0.9, min_p=0.01, logprobs=3),
    SamplingParams(repetition_penalty=1.2, presence_penalty=0.5, logit_bias={3: 1.0}, logprobs=0),
    SamplingParams(),
]


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


class Anything:
    """A grammar that allows every token."""

    def allowed(self) -> array:
        return array("I", [2**32 - 1] * (VOCAB_SIZE // 32))


def row(sampling: SamplingParams, length: int, grammar: Anything | None) -> Row:
    tokens = array("i", range(length))
    counts = TokenCounts(frozenset(tokens), dict(Counter([1, 2])))
    return Row(0, 0, 1, sampling, tokens, length - 1, counts, grammar)


def batch_of(lens: list[tuple[int, int]], num_decodes: int) -> ScheduledBatch:
    """A step of (query tokens, context tokens), decodes first; every sequence is sampled."""
    starts, positions, slots, tables = [0], [], [], []
    for index, (query_len, kv_len) in enumerate(lens):
        starts.append(starts[-1] + query_len)
        places = range(kv_len - query_len, kv_len)
        positions += places
        tables.append(array("i", [2 * index, 2 * index + 1]))
        slots += [tables[-1][place // PAGE] * PAGE + place % PAGE for place in places]
    return ScheduledBatch(
        token_ids=array("i", [1] * starts[-1]),
        positions=array("i", positions),
        slot_mapping=array("i", slots),
        cu_seqlens_q=array("i", starts),
        seq_lens_k=array("i", [kv_len for _, kv_len in lens]),
        block_tables=tables,
        sample_rows=array("i", [end - 1 for end in starts[1:]]),
        rows=[
            row(SAMPLINGS[index % len(SAMPLINGS)], kv_len, Anything() if index % 2 else None)
            for index, (_, kv_len) in enumerate(lens)
        ],
        num_decodes=num_decodes,
        max_seqlen_q=max(query_len for query_len, _ in lens),
        max_seqlen_k=max(kv_len for _, kv_len in lens),
    )


STEPS = {
    "decode": ([(1, 5), (1, 300), (1, 257), (1, 1)], 4),
    "prefill": ([(40, 40)], 0),
    "mixed": ([(1, 5), (1, 300), (9, 20), (40, 300)], 2),
    "rests of prompts": ([(1, 257), (1, 1)], 0),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_a_step_never_waits_for_the_device(name, step, backend, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    model = meta_model(name).eval()
    with fake_cuda(), torch.no_grad():
        num_layers = move_to_cuda(model)
        cache = KvCache(
            [LayerShape(2, 16, 16)] * num_layers,
            num_blocks=16,
            block_tokens=PAGE,
            dtype=torch.bfloat16,
            device=CUDA,
        )
        runner = ModelRunner(model, CUDA, BACKENDS[backend](), cache)
        lens, num_decodes = STEPS[step]
        choices = runner.submit(batch_of(lens, num_decodes))
        assert choices.tokens.device == CUDA
        assert choices.tokens.shape == (len(lens),)
        assert choices.highest.device == CUDA


def test_reading_a_result_back_is_noticed():
    with fake_cuda(), pytest.raises(RuntimeError):
        torch.empty(3, device=CUDA).sum().item()


def test_the_memory_of_a_device_counts_what_torch_has_cached(monkeypatch):
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (300, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 400)
    assert CudaDevice("cuda-0", 0, None).memory_info() == MemoryInfo(1000, 400)
    assert CudaDevice("cuda-0", 0, 600).memory_info() == MemoryInfo(600, 200)
    assert CudaDevice("cuda-0", 0, 300).memory_info() == MemoryInfo(300, 0)
