"""What a decoder does to rows between its products, on all cores, each row in one of them.

The ceiling is reading as many bytes, again and again, as are read and written. Sizes are those of
SmolLM2-135M; 16 rows, as of a decode, lie in a core's own caches.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.ceilings.beside import tell
from bench.ceilings.measure import Ceilings, num_cores, on_all_cores
from bench.row_ops.compiled import Floats, RowOps, row_ops
from neurond.kernels.library import Kernels

HIDDEN, INTERMEDIATE, HEADS, HEAD_DIM = 576, 1536, 12, 64
TURN_BYTES = 128 << 20
"""Of a round: so much that starting threads is little."""
ROWS = pytest.mark.parametrize("rows", [16, 512])


@pytest.fixture(scope="module")
def ops(kernels: Kernels) -> RowOps:
    try:
        return row_ops(kernels.variant)
    except OSError as ex:
        pytest.skip(str(ex))


def arrays(rows: int, *shape: int) -> list[Floats]:
    """Return for each core its share of the rows."""
    each = -(-rows // num_cores())
    return [
        np.random.default_rng(core).standard_normal((each, *shape), np.float32)
        for core in range(num_cores())
    ]


def measure(
    benchmark: BenchmarkFixture,
    limits: Ceilings,
    touched: Sequence[Sequence[Floats]],
    work: Callable[[int, int], None],
) -> None:
    """Let each core do its `work`, so many times as it is told.

    Args:
        touched: what one pass reads or writes, twice where it does both, by core.
    """
    num_bytes = sum(array.nbytes for arrays in touched for array in arrays)
    passes = -(-TURN_BYTES // num_bytes)

    def one(core: int) -> int:
        work(core, passes)
        return passes

    done = benchmark.pedantic(lambda: on_all_cores(one), rounds=30, warmup_rounds=3)
    assert done == passes * num_cores()
    tell(benchmark, "gb", passes * num_bytes, limits.read_gb_per_s(num_bytes), turns=passes)


@ROWS
def test_norm(benchmark: BenchmarkFixture, limits: Ceilings, ops: RowOps, rows: int) -> None:
    """Rows are read twice, the second time from the first cache; that counts once."""
    x, out, weight = arrays(rows, HIDDEN), arrays(rows, HIDDEN), np.ones(HIDDEN, np.float32)
    measure(benchmark, limits, [x, out], lambda i, n: ops.norm(x[i], weight, out[i], n))


@ROWS
def test_rotary(benchmark: BenchmarkFixture, limits: Ceilings, ops: RowOps, rows: int) -> None:
    """Query and key heads of a row, read and written in place, with a row of both tables."""
    x, angles = arrays(rows, HEADS, HEAD_DIM), arrays(rows, HEAD_DIM // 2)
    cos, sin = [np.cos(a) for a in angles], [np.sin(a) for a in angles]
    measure(benchmark, limits, [x, x, cos, sin], lambda i, n: ops.rotate(x[i], cos[i], sin[i], n))


@ROWS
@pytest.mark.parametrize("name", ["silu", "gelu_tanh"])
def test_activation(
    benchmark: BenchmarkFixture, limits: Ceilings, ops: RowOps, name: str, rows: int
) -> None:
    """Gate and up are read, what goes down is written."""
    x, out = arrays(rows, 2 * INTERMEDIATE), arrays(rows, INTERMEDIATE)
    measure(benchmark, limits, [x, out], lambda i, n: ops.activate(name, x[i], out[i], n))
