"""The engine on the CPU kernels with a real model, for batches and contexts of several sizes.

Tokens per second are the number of sequences over the time of a step.
"""

import os
from collections.abc import Iterator
from itertools import count

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from cortex_core.canonical import SamplingParams
from cortex_core.ids import RequestId
from neurond.actor.backend import ServedModel
from neurond.actor.cpu_backend import CpuBackend
from neurond.devices import CPU
from neurond.engine.engine import Engine, EngineRequest
from neurond.kernels.abi import BLOCK_TOKENS
from neurond.protocol import Configure, LoadModel
from tests.fakes.model_cache import SMOLLM2, cached_model

MAX_SEQUENCES = 64
CONTEXT_TOKENS = 4096
KV_CACHE_BYTES = 4 << 30
PREFILL_TOKENS = 1024
VOCAB_SIZE = 49_000
_numbers = count()


@pytest.fixture(scope="module", params=["bfloat16", "int8", "int4"])
def serving(request: pytest.FixtureRequest) -> Iterator[ServedModel]:
    """The model in the type that the test asks for, with all of the machine's threads."""
    backend = CpuBackend()
    opened = backend.open(Configure(CPU, len(os.sched_getaffinity(0))))
    if opened.kernels is None:
        pytest.skip(str(opened.kernels_unavailable_reason))
    command = LoadModel(
        SMOLLM2,
        str(cached_model(SMOLLM2)),
        dtype=request.param,
        context_tokens=CONTEXT_TOKENS,
        max_sequences=MAX_SEQUENCES,
        kv_cache_bytes=KV_CACHE_BYTES,
        block_tokens=BLOCK_TOKENS,
    )
    served = backend.load(command, lambda _: None)
    yield served
    served.free()


def add(engine: Engine, num_prompt_tokens: int, max_tokens: int) -> None:
    """Add a greedy request whose prompt is like no other."""
    number = next(_numbers)
    prompt = [(number * 7919 + place * 104_729) % VOCAB_SIZE for place in range(num_prompt_tokens)]
    sampling = SamplingParams(temperature=0.0, ignore_eos=True)
    request_id = RequestId(f"bench-{number}")
    engine.add(EngineRequest(request_id, number, prompt, sampling, max_tokens, seed=1))


def engine_of(serving: ServedModel) -> Engine:
    assert serving.new_engine is not None, "it generates"
    return serving.new_engine()


def tell(benchmark: BenchmarkFixture, num_tokens: int) -> None:
    """Note the rate of the fastest round, in which there were so many tokens."""
    assert benchmark.stats is not None
    benchmark.extra_info["tokens_per_s"] = round(num_tokens / benchmark.stats.stats.min, 1)


@pytest.mark.parametrize(
    ("num_sequences", "context"), [(1, 64), (4, 64), (16, 64), (64, 64), (1, 2000), (16, 2000)]
)
def test_decode(
    benchmark: BenchmarkFixture, serving: ServedModel, num_sequences: int, context: int
) -> None:
    """One token for each of so many sequences, so many tokens into their context."""
    engine = engine_of(serving)
    for _ in range(num_sequences):
        add(engine, context, CONTEXT_TOKENS)
    while len(engine.step().tokens) < num_sequences:
        pass
    output = benchmark.pedantic(engine.step, rounds=30, iterations=1, warmup_rounds=3)
    tell(benchmark, num_sequences)
    assert len(output.tokens) == num_sequences


def test_prefill(benchmark: BenchmarkFixture, serving: ServedModel) -> None:
    """A prompt that no cache knows, to its first token."""
    engine = engine_of(serving)

    def prefill() -> int:
        add(engine, PREFILL_TOKENS, 1)
        tokens = 0
        while engine.has_work():
            tokens += len(engine.step().tokens)
        return tokens

    assert benchmark.pedantic(prefill, rounds=3, iterations=1, warmup_rounds=1) == 1
    tell(benchmark, PREFILL_TOKENS)
