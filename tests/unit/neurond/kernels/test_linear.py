"""Packed matrices by themselves: what weights become, and that a product's bits depend on nothing.

Every variant that is built and runs on this processor is tested.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from neurond.kernels import abi
from neurond.kernels.library import Kernels
from neurond.kernels.memory import Buffer
from neurond.kernels.variants import VARIANTS, load_kernels

FORMATS = list(abi.FORMATS)
GROUP = 32
Floats = NDArray[np.float32]
ROUNDED = {"bf16": 0.003, "int8": 0.007, "int4": 0.007}
"""Error that rounding the inputs makes, by the product."""

BUILT = [found for name in VARIANTS if isinstance(found := load_kernels(name), Kernels)]


@pytest.fixture(params=BUILT, ids=lambda kernels: kernels.variant)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return request.param


def test_there_is_something_to_test() -> None:
    assert "portable" in {kernels.variant for kernels in BUILT}


class Packed:
    """A packed matrix and the memory that it lies in."""

    def __init__(
        self, kernels: Kernels, weight_format: str, weights: Floats, biased: bool = True
    ) -> None:
        self._kernels = kernels
        self._memory = Buffer(kernels.packed_bytes(weight_format, *weights.shape))
        self._bias = np.linspace(-1, 1, len(weights), dtype=np.float32) * biased
        self.linear = abi.Linear(
            abi.FORMATS[weight_format],
            *weights.shape,
            0,
            self._memory.address,
            self._bias.ctypes.data if biased else None,
        )
        kernels.pack_rows(self.linear, 0, weights)

    def weights(self) -> Floats:
        return self._kernels.unpack_rows(self.linear)

    def apply(self, x: Floats, threads: int = 1) -> Floats:
        with self._kernels.pool(threads) as pool:
            return self._kernels.linear_apply(pool, self.linear, x)

    def expected(self, x: Floats) -> NDArray[np.float64]:
        return x.astype(np.float64) @ self.weights().T.astype(np.float64) + self._bias


def random_weights(out_features: int, in_features: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((out_features, in_features)).astype(np.float32)


def grouped(rng: np.random.Generator, low: int, high: int, lift: bool, ends: bool) -> Floats:
    """Return weights that are scale * q + minimum in groups, with float16 scales and minimums."""
    shape = (48, 8, GROUP)
    q = rng.integers(low, high + 1, shape)
    if ends:
        q[..., 0], q[..., 1] = low, high
    scale = (0.01 + rng.random((48, 8, 1))).astype(np.float16).astype(np.float32)
    minimum = rng.standard_normal((48, 8, 1)).astype(np.float16).astype(np.float32)
    return (scale * q + (minimum if lift else 0)).astype(np.float32).reshape(48, -1)


@pytest.mark.parametrize(
    ("weight_format", "low", "high", "lift", "ends"),
    [
        ("int4", 0, 15, True, True),  # Q4_1
        ("int4", -8, 7, False, True),  # Q4_0
        ("int4", 2, 11, True, True),  # a group of Q4_K that does not use its whole range
        ("int4", 5, 8, True, True),
        ("int4", 0, 1, True, True),
        ("int8", -127, 127, False, True),  # Q8_0
    ],
)
def test_weights_that_were_quantised_already_stay_what_they_are(
    kernels, weight_format, low, high, lift, ends
) -> None:
    weights = grouped(np.random.default_rng(high), low, high, lift, ends)
    packed = Packed(kernels, weight_format, weights).weights()
    largest = np.abs(weights.reshape(-1, GROUP)).max(axis=1, keepdims=True)
    # One step of float16, for the scale may be rounded on the way.
    assert (np.abs(packed - weights).reshape(-1, GROUP) <= largest * 2.0**-10).all()


@pytest.mark.parametrize(
    ("weight_format", "error"), [("bf16", 0.002), ("int8", 0.008), ("int4", 0.09)]
)
def test_other_weights_are_met_closely(kernels, weight_format, error) -> None:
    weights = random_weights(64, 256)
    difference = Packed(kernels, weight_format, weights).weights() - weights
    assert np.linalg.norm(difference) <= error * np.linalg.norm(weights)


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize(("out_features", "in_features"), [(16, 32), (50, 96), (130, 288)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("rows", [7, 20])
def test_products_are_those_of_the_packed_weights(
    kernels, weight_format, out_features, in_features, biased, rows
) -> None:
    packed = Packed(kernels, weight_format, random_weights(out_features, in_features), biased)
    x = random_weights(rows, in_features, seed=1)
    error = packed.apply(x) - packed.expected(x)
    assert np.linalg.norm(error) <= ROUNDED[weight_format] * np.linalg.norm(packed.expected(x))


@pytest.mark.parametrize("weight_format", FORMATS)
def test_an_outlier_does_not_drown_what_stands_beside_it(kernels, weight_format) -> None:
    packed = Packed(kernels, weight_format, random_weights(130, 288))
    x = random_weights(7, 288, seed=1)
    without = np.linalg.norm(packed.expected(x))
    x[:, 40] = 128.0  # which bfloat16 has
    error = packed.apply(x) - packed.expected(x)
    assert np.linalg.norm(error) <= ROUNDED[weight_format] * without


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("biased", [True, False])
def test_a_rows_product_has_the_same_bits_in_any_company(kernels, weight_format, biased) -> None:
    packed = Packed(kernels, weight_format, random_weights(130, 288), biased)
    x = random_weights(70, 288, seed=2)
    x[::3, 50] *= 100
    x[::7, 200] *= 30
    alone = np.concatenate([packed.apply(row[None]) for row in x])
    for rows in (2, 3, 4, 5, 6, 7, 13, 16, 17, 32, 33, 64, 70):
        for threads in (1, 2, 3):
            assert (packed.apply(x[:rows], threads) == alone[:rows]).all(), (rows, threads)


def test_the_smallest_numbers_have_the_same_bits_in_any_company(kernels) -> None:
    """Some instructions take numbers below 2^-126 for 0, as inputs and as results."""
    weights = random_weights(48, 96)
    weights[::3] *= 1e-20
    packed = Packed(kernels, "bf16", weights, biased=False)
    x = random_weights(20, 96, seed=5)
    x[::2] *= 1e-18
    x[1::4] *= 1e-38
    alone = np.concatenate([packed.apply(row[None]) for row in x])
    assert (np.abs(alone[alone != 0]) < 1e-37).any(), "nothing is that small"
    for rows in (2, 3, 4, 5, 17, 20):
        assert (packed.apply(x[:rows]) == alone[:rows]).all(), rows


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("biased", [True, False])
def test_many_long_rows_have_the_same_bits_as_one(kernels, weight_format, biased) -> None:
    """More inputs and rows than are multiplied at once, in the last panel fewer outputs."""
    packed = Packed(kernels, weight_format, random_weights(90, 67 * GROUP), biased)
    x = random_weights(450, 67 * GROUP, seed=3)
    x[::3, 66 * GROUP] = 128.0
    together = packed.apply(x, threads=2)
    for row in (0, 31, 32, 200, 415, 416, 447, 448, 449):
        assert (packed.apply(x[row : row + 1])[0] == together[row]).all(), row


@pytest.mark.parametrize("weight_format", FORMATS)
def test_rows_of_more_than_64_groups_have_the_same_bits_in_any_company(
    kernels, weight_format
) -> None:
    """Which groups have second parts is a bit for each, of which a word has 64."""
    packed = Packed(kernels, weight_format, random_weights(40, 76 * GROUP))
    x = random_weights(45, 76 * GROUP, seed=4)
    without = np.linalg.norm(packed.expected(x))
    for group in range(0, 76, 5):
        x[::3, group * GROUP + 7] = 128.0
    for group in range(2, 76, 7):
        x[::4, group * GROUP + 3] = -96.0
    alone = np.concatenate([packed.apply(row[None]) for row in x])
    error = alone - packed.expected(x)
    assert np.linalg.norm(error) <= ROUNDED[weight_format] * without
    for rows in (2, 3, 5, 7, 13, 17, 33, 45):
        for threads in (1, 3):
            assert (packed.apply(x[:rows], threads) == alone[:rows]).all(), (rows, threads)


@pytest.mark.parametrize("weight_format", ["int8", "int4"])
def test_rows_of_zeros_and_of_extremes_stay_finite(kernels, weight_format) -> None:
    weights = np.full((32, 64), 1.0, np.float32)
    weights[::2] *= -1
    packed = Packed(kernels, weight_format, weights)
    x = np.zeros((5, 64), np.float32)
    x[1], x[2] = 1e4, -1e4
    x[3, ::2] = 1e4
    x[4, 0], x[4, GROUP:] = 1e-38, 1.0  # of which there is no inverse
    np.testing.assert_allclose(packed.apply(x), packed.expected(x), rtol=0.01)


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 1, 16, 31, 40])
def test_an_input_that_is_not_finite_shows_in_all_of_its_row(
    kernels, weight_format, broken, at
) -> None:
    packed = Packed(kernels, weight_format, random_weights(50, 96))
    x = random_weights(7, 96, seed=1)
    whole = packed.apply(x)
    x[3, at] = broken
    found = packed.apply(x)
    assert not np.isfinite(found[3]).any()
    assert (np.delete(found, 3, axis=0) == np.delete(whole, 3, axis=0)).all()
