"""Whether a library computes products rightly on this processor, before anything is served with it.

A processor that takes an instruction otherwise than its manual says, or a compiler that errs, gives
wrong text and no error. Weights, inputs and sums are whole numbers that every format holds exactly,
so that a right product is right to the last bit. Such sums do not tell in which order they are
rounded, so rows of other numbers are computed alone and among many too, as that may be by other
instructions.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from neurond.kernels import abi
from neurond.kernels.library import Kernels, Pool
from neurond.kernels.memory import Buffer, address_of

OUT_FEATURES: Final = 7 * abi.PANEL - 3
"""Panels enough for every number of them that a kernel takes at once, and one that is not full."""
IN_FEATURES: Final = 19 * abi.GROUP
"""More than a product of many rows takes without its sums going to memory."""
ROWS: Final = (*range(1, 9), 13, 16, 17, 33, 97)
"""Enough for every number of rows that a kernel takes at once."""
ALONE: Final = 4
"""Up to so many rows are computed by other instructions than many are, where there are both."""
COMPANY: Final = 33
OUTLIER: Final = 127.0 * 128.0
"""Stands in a group of every other row, whose other inputs 8 bits do not tell apart from 0 then."""
LARGEST: Final = {"bf16": (-127, 127), "int8": (-127, 127), "int4": (-8, 7)}
"""The weights' range, whose ends are in every group: then scales are 1."""


def wrong_product(kernels: Kernels) -> str | None:
    """Return what is wrong with a product, or None; takes a few milliseconds.

    Raises:
        OSError: there is no memory for it.
    """
    with kernels.pool(1) as pool:
        for weight_format in abi.FORMATS:
            if not _is_right(kernels, pool, weight_format):
                return f"it computes {weight_format} products wrongly on this processor"
        if not _rounds_alike(kernels, pool):
            return "a bf16 product's bits depend on its number of rows on this processor"
    return None


def _is_right(kernels: Kernels, pool: Pool, weight_format: str) -> bool:
    low, high = LARGEST[weight_format]
    weights = _whole_numbers(OUT_FEATURES, low, high)
    bias = np.arange(OUT_FEATURES, dtype=np.float32)
    buffer = Buffer(kernels.packed_bytes(weight_format, *weights.shape))
    linear = abi.Linear(
        abi.FORMATS[weight_format], *weights.shape, 0, buffer.address, address_of(bias)
    )
    kernels.pack_rows(linear, 0, weights)
    inputs = _whole_numbers(max(ROWS), -127, 127)
    inputs[::2, :2] = -OUTLIER, OUTLIER
    expected = inputs @ weights.T + bias
    return all(
        np.array_equal(kernels.linear_apply(pool, linear, inputs[:rows]), expected[:rows])
        for rows in ROWS
    )


def _rounds_alike(kernels: Kernels, pool: Pool) -> bool:
    random = np.random.default_rng(0)
    weights = random.standard_normal((OUT_FEATURES, IN_FEATURES), np.float32)
    inputs = random.standard_normal((COMPANY, IN_FEATURES), np.float32)
    buffer = Buffer(kernels.packed_bytes("bf16", *weights.shape))
    linear = abi.Linear(abi.FORMATS["bf16"], *weights.shape, 0, buffer.address)
    kernels.pack_rows(linear, 0, weights)
    among = kernels.linear_apply(pool, linear, inputs)
    return all(
        np.array_equal(kernels.linear_apply(pool, linear, inputs[:rows]), among[:rows])
        for rows in range(1, ALONE + 1)
    )


def _whole_numbers(rows: int, low: int, high: int) -> NDArray[np.float32]:
    """Return [rows, IN_FEATURES] numbers, of which each group holds `low` and `high`."""
    random = np.random.default_rng(rows)
    numbers = random.integers(low, high, (rows, IN_FEATURES), endpoint=True).astype(np.float32)
    numbers[:, :: abi.GROUP] = low
    numbers[:, 1 :: abi.GROUP] = high
    return numbers
