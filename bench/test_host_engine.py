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
from neurond.engine.device import open_device
from neurond.engine.engine import Engine, EngineRequest
from neurond.kernels.packed_file import packed_path
from neurond.kernels.packed_model import PackedModel, open_packed
from neurond.kernels.variants import NoKernels, load_kernels
from neurond.models.host_serving import HostServing
from neurond.models.packed_loader import load_unpacked, pack_loaded
from tests.fakes.model_cache import SMOLLM2, real_model

MAX_SEQUENCES = 64
CONTEXT_TOKENS = 4096
KV_CACHE_BYTES = 4 << 30
PREFILL_TOKENS = 1024
VOCAB_SIZE = 49_000
_numbers = count()


@pytest.fixture(scope="module", params=["bf16", "int8", "int4"])
def serving(request: pytest.FixtureRequest) -> Iterator[HostServing]:
    """The model in the format that the test asks for, with all of the machine's threads."""
    kernels = load_kernels()
    if isinstance(kernels, NoKernels):
        pytest.skip(kernels.reason)
    folder, manifest = real_model(SMOLLM2)
    threads = len(os.sched_getaffinity(0))
    device = open_device("cpu", threads, None)
    path = packed_path(folder, manifest.weights_hash, request.param, kernels.variant)
    packed = open_packed(path, kernels, manifest.weights_hash, request.param)
    if packed is None:
        loaded = load_unpacked(folder, manifest, device, lambda _: None)
        made = pack_loaded(loaded, folder, request.param, kernels, lambda _: None)
        assert isinstance(made, PackedModel)
        packed = made
    with kernels.pool(threads) as pool:
        yield HostServing(
            packed,
            kernels,
            pool,
            context_tokens=CONTEXT_TOKENS,
            max_sequences=MAX_SEQUENCES,
            kv_cache_bytes=KV_CACHE_BYTES,
        )


def add(engine: Engine, num_prompt_tokens: int, max_tokens: int) -> None:
    """Add a greedy request whose prompt is like no other."""
    number = next(_numbers)
    prompt = [(number * 7919 + place * 104_729) % VOCAB_SIZE for place in range(num_prompt_tokens)]
    sampling = SamplingParams(temperature=0.0, ignore_eos=True)
    request_id = RequestId(f"bench-{number}")
    engine.add(EngineRequest(request_id, number, prompt, sampling, max_tokens, seed=1))


def tell(benchmark: BenchmarkFixture, num_tokens: int) -> None:
    """Note the rate of the fastest round, in which there were so many tokens."""
    assert benchmark.stats is not None
    benchmark.extra_info["tokens_per_s"] = round(num_tokens / benchmark.stats.stats.min, 1)


@pytest.mark.parametrize(
    ("num_sequences", "context"), [(1, 64), (4, 64), (16, 64), (64, 64), (1, 2000), (16, 2000)]
)
def test_decode(
    benchmark: BenchmarkFixture, serving: HostServing, num_sequences: int, context: int
) -> None:
    """One token for each of so many sequences, so many tokens into their context."""
    engine = serving.new_engine()
    for _ in range(num_sequences):
        add(engine, context, CONTEXT_TOKENS)
    while len(engine.step().tokens) < num_sequences:
        pass
    output = benchmark.pedantic(engine.step, rounds=30, iterations=1, warmup_rounds=3)
    tell(benchmark, num_sequences)
    assert len(output.tokens) == num_sequences


def test_prefill(benchmark: BenchmarkFixture, serving: HostServing) -> None:
    """A prompt that no cache knows, to its first token."""
    engine = serving.new_engine()

    def prefill() -> int:
        add(engine, PREFILL_TOKENS, 1)
        tokens = 0
        while engine.has_work():
            tokens += len(engine.step().tokens)
        return tokens

    assert benchmark.pedantic(prefill, rounds=3, iterations=1, warmup_rounds=1) == 1
    tell(benchmark, PREFILL_TOKENS)
