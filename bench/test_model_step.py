"""The engine with a real model: SmolLM2-135M-Instruct on the CPU, all threads, no HTTP.

Tokens per second are the number of sequences over the time of a step.
"""

import os
from itertools import count

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from cortex_core.canonical import SamplingParams
from cortex_core.ids import RequestId
from neurond.engine.device import open_device
from neurond.engine.engine import Engine, EngineRequest
from neurond.memory_plan import BLOCK_TOKENS
from neurond.models.loader import LoadedModel, load_model
from neurond.models.torch_serving import TorchServing
from neurond.sources.prepared import read_manifest
from tests.fakes.model_cache import SMOLLM2, cached_model

CONTEXT_TOKENS = 2048
KV_CACHE_BYTES = 2 << 30
PROMPT_TOKENS = 64
_numbers = count()


@pytest.fixture(scope="module", params=["bfloat16", "float32"])
def loaded(request: pytest.FixtureRequest) -> LoadedModel:
    """The model with weights in the type that the test asks for."""
    folder = cached_model(SMOLLM2)
    device = open_device("cpu", threads=len(os.sched_getaffinity(0)), memory_budget_bytes=None)
    return load_model(folder, read_manifest(folder), request.param, device, lambda _: None)


def engine_of(loaded: LoadedModel, max_sequences: int) -> Engine:
    """Return an engine with a KV cache of its own."""
    return TorchServing(
        loaded,
        context_tokens=CONTEXT_TOKENS,
        max_sequences=max_sequences,
        kv_cache_bytes=KV_CACHE_BYTES,
        block_tokens=BLOCK_TOKENS,
    ).new_engine()


def add(engine: Engine, num_prompt_tokens: int, max_tokens: int) -> RequestId:
    """Add a greedy request of random tokens."""
    number = next(_numbers)
    generator = torch.Generator().manual_seed(number)
    prompt = torch.randint(100, 40_000, (num_prompt_tokens,), generator=generator).tolist()
    request_id = RequestId(f"bench-{number}")
    sampling = SamplingParams(temperature=0.0)
    engine.add(EngineRequest(request_id, number, prompt, sampling, max_tokens, seed=1))
    return request_id


@pytest.mark.parametrize("num_sequences", [1, 16, 64])
def test_decode(benchmark: BenchmarkFixture, loaded: LoadedModel, num_sequences: int) -> None:
    """One token for each of so many sequences, about 100 tokens into their context."""
    engine = engine_of(loaded, num_sequences)
    for _ in range(num_sequences):
        add(engine, PROMPT_TOKENS, CONTEXT_TOKENS)
    while len(engine.step().tokens) < num_sequences:
        pass
    output = benchmark.pedantic(engine.step, rounds=20, iterations=1, warmup_rounds=3)
    benchmark.extra_info["tokens_per_step"] = num_sequences
    assert len(output.tokens) == num_sequences


def test_prefill(benchmark: BenchmarkFixture, loaded: LoadedModel) -> None:
    """A prompt of 1,024 tokens that no cache knows, to its first token."""
    engine = engine_of(loaded, max_sequences=1)

    def prefill() -> int:
        add(engine, 1024, 1)
        steps = 1
        while not engine.step().tokens:
            steps += 1
        return steps

    assert benchmark.pedantic(prefill, rounds=3, iterations=1, warmup_rounds=1) == 2
    benchmark.extra_info["tokens_per_round"] = 1024
