"""The engine on the CPU kernels with a real model, for batches and contexts of several sizes.

Tokens per second are the number of sequences over the time of a step.
"""

from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.host_engine import add, engine_of, serve
from neurond.actor.backend import ServedModel
from neurond.kernels.variants import NoKernels, load_kernels
from tests.fakes.model_cache import SMOLLM2

MAX_SEQUENCES = 64
CONTEXT_TOKENS = 4096
KV_CACHE_BYTES = 4 << 30
PREFILL_TOKENS = 1024


@pytest.fixture(scope="module", params=["bfloat16", "int8", "int4"])
def serving(request: pytest.FixtureRequest) -> Iterator[ServedModel]:
    """The model in the type that the test asks for, with all of the machine's threads."""
    found = load_kernels()
    if isinstance(found, NoKernels):
        pytest.skip(found.reason)
    served = serve(
        SMOLLM2,
        request.param,
        context_tokens=CONTEXT_TOKENS,
        max_sequences=MAX_SEQUENCES,
        kv_cache_bytes=KV_CACHE_BYTES,
    )
    yield served
    served.free()


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
