"""The engine on the CPU kernels with a real model, for batches and contexts of several sizes.

Tokens per second are the number of sequences over the time of a step, the median of some.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.host_engine import add, engine_of, serve
from cortex_core.neuron_api import Dtype, KvDtype
from neurond.actor.backend import ServedModel
from neurond.kernels.variants import NoKernels, load_kernels
from tests.fakes.model_cache import SMOLLM2

MAX_SEQUENCES = 64
CONTEXT_TOKENS = 4096
KV_CACHE_BYTES = 4 << 30
FORMATS: Final[Mapping[str, tuple[Dtype, KvDtype]]] = {
    "bf16": ("bfloat16", "bfloat16"),
    "int8": ("int8", "bfloat16"),
    "int4": ("int4", "bfloat16"),
    "bf16-kv8": ("bfloat16", "int8"),
    "int4-kv8": ("int4", "int8"),
}
"""What the weights are in, and keys and values."""


@pytest.fixture(scope="module", params=FORMATS)
def serving(request: pytest.FixtureRequest) -> Iterator[ServedModel]:
    """The model in the format that the test asks for, with all of the machine's threads."""
    found = load_kernels()
    if isinstance(found, NoKernels):
        pytest.skip(found.reason)
    dtype, kv_dtype = FORMATS[request.param]
    served = serve(
        SMOLLM2,
        dtype,
        kv_dtype=kv_dtype,
        context_tokens=CONTEXT_TOKENS,
        max_sequences=MAX_SEQUENCES,
        kv_cache_bytes=KV_CACHE_BYTES,
    )
    yield served
    served.free()


def tell(benchmark: BenchmarkFixture, num_tokens: int) -> None:
    """Note the rate of the median round; in each there were so many tokens."""
    assert benchmark.stats is not None
    benchmark.extra_info["tokens_per_s"] = round(num_tokens / benchmark.stats.stats.median, 1)


@pytest.mark.parametrize("context", [64, 512, 2000])
@pytest.mark.parametrize("num_sequences", [1, 4, 16, 64])
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


@pytest.mark.parametrize("prompt", [128, 1024])
def test_prefill(benchmark: BenchmarkFixture, serving: ServedModel, prompt: int) -> None:
    """A prompt that no cache knows, to its first token."""
    engine = engine_of(serving)

    def prefill() -> int:
        add(engine, prompt, 1)
        tokens = 0
        while engine.has_work():
            tokens += len(engine.step().tokens)
        return tokens

    assert benchmark.pedantic(prefill, rounds=3, iterations=1, warmup_rounds=1) == 1
    tell(benchmark, prompt)
