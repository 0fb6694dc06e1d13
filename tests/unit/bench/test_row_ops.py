"""The row functions that are timed do what the decoder needs, in every row and pass."""

import numpy as np
import pytest

from bench.row_ops.compiled import RowOps, row_ops
from neurond.kernels.variants import NoKernels, load_kernels

ROWS = 3


@pytest.fixture(scope="module")
def ops() -> RowOps:
    kernels = load_kernels()
    assert not isinstance(kernels, NoKernels), kernels.reason
    return row_ops(kernels.variant)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(shape, np.float32)


def test_a_norm_is_by_the_root_mean_square(ops: RowOps) -> None:
    x, weight, out = floats(ROWS, 96), floats(96), np.zeros((ROWS, 96), np.float32)
    ops.norm(x, weight, out, passes=2)
    expected = x / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_heads_turn_once_in_each_pass(ops: RowOps) -> None:
    x, angles = floats(ROWS, 2, 32), floats(ROWS, 16)
    halves = x[..., :16] + 1j * x[..., 16:]
    turned = halves * np.exp(2j * angles)[:, None]
    ops.rotate(x, np.cos(angles), np.sin(angles), passes=2)
    np.testing.assert_allclose(x, np.concatenate([turned.real, turned.imag], -1), atol=1e-5)


@pytest.mark.parametrize("name", ["silu", "gelu_tanh"])
def test_an_activation_gates(ops: RowOps, name: str) -> None:
    x, out = floats(ROWS, 64), np.zeros((ROWS, 32), np.float32)
    ops.activate(name, x, out, passes=2)
    gate, up = x[:, :32], x[:, 32:]
    inner = gate if name == "silu" else 2 * np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)
    np.testing.assert_allclose(out, gate / (1 + np.exp(-inner)) * up, rtol=1e-4, atol=1e-5)
