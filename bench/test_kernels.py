"""The CPU kernels one by one, each beside what the machine can do at most.

`extra_info` has the rate and its share of the ceiling: of reading memory where a kernel reads more
than it computes, of multiplying otherwise; int8 and int4 multiply as bytes, int8 keys as floats.
Reading's ceiling is of as many bytes as are read until the same ones come again, all weights or
pages: some of them may lie in the last cache still. Sampling's is to read the logits once, which
were written just before; one row of them is one thread's work.
"""

from array import array
from itertools import cycle
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture
from transformers import LlamaConfig

from bench.ceilings.beside import tell
from bench.ceilings.measure import Ceilings
from cortex_core.canonical import SamplingParams
from neurond.engine.host_sampler import sample_on_host
from neurond.kernels import abi
from neurond.kernels.library import Kernels, Pool, StepColumns
from neurond.kernels.memory import Buffer, KvFormat, KvPages, address_of
from neurond.kernels.packed_model import PackedModel
from neurond.models.decoder_plan import DecoderPlan
from neurond.models.pack import pack_to_memory
from neurond.models.plan_check import plan_decoder
from tests.fakes.planned_models import make_model
from tests.fakes.sampler_rows import row

OUT_FEATURES, IN_FEATURES = 3072, 2048
BEYOND_CACHES_BYTES = 192 << 20
HEADS, KV_HEADS, HEAD_DIM, LAYERS = 32, 8, 64, 4
CHUNK_TOKENS = 512
MOST_READ_ROWS = 8
"""So many rows and fewer are told by the weights that they read, more by what they multiply."""
VOCAB_SIZE = 49_152
SAMPLINGS = {
    "greedy": SamplingParams(temperature=0.0),
    "top-p": SamplingParams(temperature=0.8, top_p=0.95),
    "top-k": SamplingParams(temperature=0.8, top_k=50),
}


@pytest.fixture(scope="module", params=["bf16", "int8", "int4"])
def matrices(request: pytest.FixtureRequest, kernels: Kernels) -> list[tuple[abi.Linear, Buffer]]:
    """Copies of a packed matrix, more than the caches hold, each with the memory it lies in."""
    weights = np.random.default_rng(1).standard_normal((OUT_FEATURES, IN_FEATURES), np.float32)
    size_bytes = kernels.packed_bytes(request.param, OUT_FEATURES, IN_FEATURES)
    made: list[tuple[abi.Linear, Buffer]] = []
    for _ in range(BEYOND_CACHES_BYTES // size_bytes + 1):
        buffer = Buffer(size_bytes)
        linear = abi.Linear(
            abi.FORMATS[request.param], OUT_FEATURES, IN_FEATURES, 0, buffer.address, None
        )
        if made:
            buffer.bytes[:] = made[0][1].bytes
        else:
            kernels.pack_rows(linear, 0, weights)
        made.append((linear, buffer))
    return made


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 8, 16, 64, 512])
def test_product(
    benchmark: BenchmarkFixture,
    kernels: Kernels,
    pool: Pool,
    limits: Ceilings,
    matrices: list[tuple[abi.Linear, Buffer]],
    rows: int,
) -> None:
    """`rows` rows times a matrix of 2,048 x 3,072; few rows times all copies of it, which are read.

    A stream that verifies n drafted tokens has n + 1 rows: `us` is to rise with the rows, if at
    all, and no number of them is to be dearer than the next.
    """
    x = np.random.default_rng(2).standard_normal((rows, IN_FEATURES), np.float32)
    turns = cycle(matrices)
    is_read = rows <= MOST_READ_ROWS

    def multiply() -> NDArray[np.float32]:
        for _ in range(len(matrices) if is_read else 1):
            y = kernels.linear_apply(pool, next(turns)[0], x)
        return y

    y = benchmark.pedantic(multiply, rounds=10 if is_read or rows == 512 else 60, warmup_rounds=3)
    assert y.shape == (rows, OUT_FEATURES)
    linear, buffer = matrices[0]
    if is_read:
        num_bytes = len(matrices) * buffer.size_bytes
        ceiling = limits.read_gb_per_s(num_bytes)
        tell(benchmark, "gb", num_bytes, ceiling, turns=len(matrices))
        return
    is_bf16 = linear.format == abi.FORMATS["bf16"]
    ceiling = limits.bf16_gmac_per_s if is_bf16 else limits.byte_gmac_per_s
    tell(benchmark, "gmac", rows * OUT_FEATURES * IN_FEATURES, ceiling)


@pytest.fixture(scope="module")
def attentive(kernels: Kernels) -> PackedModel:
    """A model that does little besides attention."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=8192,
    )
    plan = plan_decoder(make_model(config))
    assert isinstance(plan, DecoderPlan)
    return pack_to_memory(plan, "0123456789abcdef", "bf16", kernels, lambda _: None)


class AttentionStep:
    """A step of sequences that have a context already, each with some query tokens at its end."""

    def __init__(
        self,
        kernels: Kernels,
        pool: Pool,
        model: PackedModel,
        sequences: int,
        context: int,
        queries: int,
        kv_format: KvFormat,
    ) -> None:
        self._kernels, self._pool, self._model = kernels, pool, model
        width = -(-context // abi.BLOCK_TOKENS)
        self.pages = _written_pages(kernels, model, sequences * width, kv_format)
        places = [array("i", range(context - queries, context)) for _ in range(sequences)]
        base = width * abi.BLOCK_TOKENS
        slots = [place + i * base for i, sequence in enumerate(places) for place in sequence]
        total = sequences * queries
        self._columns = StepColumns(
            token_ids=array("i", [1]) * total,
            positions=array("i", [p for sequence in places for p in sequence]),
            slots=array("i", slots),
            cu_seqlens_q=array("i", range(0, total + 1, queries)),
            seq_lens_k=array("i", [context]) * sequences,
            block_tables=array("i", range(sequences * width)),
            table_width=width,
            sample_rows=array("i", [total - 1]),
        )
        self._scratch = Buffer(kernels.scratch_bytes(model.struct, pool, total, sequences, 1))
        self._logits = np.empty((1, model.decoder.vocab_size), np.float32)

    def __call__(self) -> None:
        self._kernels.step(
            self._pool,
            self._model.struct,
            self._columns,
            self.pages,
            self._scratch,
            self._logits,
        )


def _written_pages(
    kernels: Kernels, model: PackedModel, num_blocks: int, kv_format: KvFormat
) -> KvPages:
    """Return pages with small numbers in them: untouched ones would all be one page of zeros."""
    pages = kernels.kv_pages(model.struct, num_blocks, kv_format)
    values = np.random.default_rng(3).standard_normal(1 << 16, np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    for layer in pages.layers:
        layer.bytes[:] = np.resize(halves, layer.size_bytes)
    return pages


@pytest.mark.parametrize("context", [256, 2048, 8192])
@pytest.mark.parametrize("sequences", [1, 16])
@pytest.mark.parametrize("kv_format", get_args(KvFormat))
def test_attention_decode(
    benchmark: BenchmarkFixture,
    kernels: Kernels,
    pool: Pool,
    limits: Ceilings,
    attentive: PackedModel,
    kv_format: KvFormat,
    sequences: int,
    context: int,
) -> None:
    """One query for each sequence, over 4 layers of 8 K/V heads of 64: keys and values are read."""
    step = AttentionStep(kernels, pool, attentive, sequences, context, 1, kv_format)
    benchmark.pedantic(step, rounds=20, warmup_rounds=2)
    tell(benchmark, "gb", step.pages.size_bytes, limits.read_gb_per_s(step.pages.size_bytes))


@pytest.mark.parametrize("context", [512, 4096])
@pytest.mark.parametrize("kv_format", get_args(KvFormat))
def test_attention_prefill(
    benchmark: BenchmarkFixture,
    kernels: Kernels,
    pool: Pool,
    limits: Ceilings,
    attentive: PackedModel,
    kv_format: KvFormat,
    context: int,
) -> None:
    """The last 512 tokens of a prompt, over 4 layers of 32 heads of 64."""
    step = AttentionStep(kernels, pool, attentive, 1, context, CHUNK_TOKENS, kv_format)
    benchmark.pedantic(step, rounds=5, warmup_rounds=1)
    seen = CHUNK_TOKENS * (context - (CHUNK_TOKENS - 1) / 2)
    ceiling = limits.bf16_gmac_per_s if kv_format == "bf16" else limits.float_gmac_per_s
    tell(benchmark, "gmac", 2 * seen * LAYERS * HEADS * HEAD_DIM, ceiling)


@pytest.mark.parametrize("rows", [1, 16, 64])
@pytest.mark.parametrize("kind", SAMPLINGS)
def test_sampling(
    benchmark: BenchmarkFixture,
    kernels: Kernels,
    pool: Pool,
    limits: Ceilings,
    kind: str,
    rows: int,
) -> None:
    """A token for each of `rows` rows of 49,152 logits."""
    kernel = kernels.sampler(pool, VOCAB_SIZE)
    logits = 4 * np.random.default_rng(4).standard_normal((rows, VOCAB_SIZE), np.float32)
    used = np.empty_like(logits)
    asked = [row(SAMPLINGS[kind], seed=seed) for seed in range(rows)]

    def choose() -> int:
        return len(sample_on_host(kernel, address_of(used), asked))

    chosen = benchmark.pedantic(choose, setup=lambda: np.copyto(used, logits), rounds=50)
    assert chosen == rows
    tell(benchmark, "gb", logits.nbytes, limits.read_gb_per_s(logits.nbytes))
