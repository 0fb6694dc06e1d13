"""Whether a library computes what stands between two products rightly, as `attention_check` does.

Where a variant makes the rows of the second product within the first one, that is checked with it.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from neurond.kernels import abi
from neurond.kernels.library import Kernels
from neurond.kernels.one_layer import (
    EIGHTH,
    HEAD_DIM,
    HIDDEN,
    NUM_HEADS,
    Floats,
    LayerWeights,
    OneLayer,
    signs,
    uneven,
)

GATES: Final = 5 * abi.GROUP
"""Panels enough for every number of them that a kernel takes at once."""
PIECES: Final = (1, 2, 3, 4, 5, 8, 17, 33, 97)
"""Tokens of each step: every number of rows that a kernel takes at once."""
CLOSE: Final = 0.03
"""The largest error of a result, which is about 1: between the products bfloat16 rounds."""


def wrong_gate(kernels: Kernels) -> str | None:
    """Return what is wrong with a gate, or None; takes some milliseconds.

    Raises:
        OSError: there is no memory for it.
    """
    exact, rounded = _weights(signs), _weights(uneven)
    with kernels.pool(1) as pool:
        for activation, formula in FORMULAS.items():
            found = OneLayer(kernels, exact, activation).states(pool, "bf16", PIECES)
            error = np.abs(found - _expected(exact, formula)).max()
            if not error < CLOSE:  # it may be no number
                return f"it computes {activation} between products wrongly on this processor"
            layer = OneLayer(kernels, rounded, activation)
            if not layer.states_are_alike(pool, "bf16", PIECES):
                return (
                    f"the bits of {activation} between products depend on its number of rows on "
                    "this processor"
                )
    return None


def _weights(make: Callable[[np.random.Generator, int, int], Floats]) -> LayerWeights:
    """Return a layer whose attention adds nothing."""
    random = np.random.default_rng(0)
    width = NUM_HEADS * HEAD_DIM
    return LayerWeights(
        tokens=make(random, sum(PIECES), HIDDEN),
        qkv=np.zeros((width + 2 * HEAD_DIM, HIDDEN), np.float32),
        out=np.zeros((HIDDEN, width), np.float32),
        gate_up=make(random, 2 * GATES, HIDDEN) * EIGHTH,
        down=make(random, HIDDEN, GATES) * EIGHTH,
    )


def _expected(layer: LayerWeights, formula: Callable[[Floats], Floats]) -> Floats:
    gate, up = np.split(layer.tokens @ layer.gate_up.T, 2, axis=1)
    states = layer.tokens + (formula(gate) * up) @ layer.down.T
    normed: Floats = states / np.sqrt(np.mean(states**2, axis=1, keepdims=True))
    return normed


def _silu(x: Floats) -> Floats:
    found: Floats = x / (1 + np.exp(-x))
    return found


def _gelu_tanh(x: Floats) -> Floats:
    found: Floats = x / (1 + np.exp(-1.5957691216 * (x + 0.044715 * x**3)))
    return found


def _gelu(x: Floats) -> Floats:
    """Return x/2 (1 + erf(x / sqrt(2))), within 1.5e-7 (Abramowitz and Stegun 7.1.26)."""
    t = 1 / (1 + 0.3275911 * np.abs(x) / np.sqrt(2))
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + factor) * t
    erf = np.sign(x) * (1 - series * np.exp(-x * x / 2))
    found: Floats = (x / 2 * (1 + erf)).astype(np.float32)
    return found


FORMULAS: Final[dict[str, Callable[[Floats], Floats]]] = {
    "silu": _silu,
    "gelu_tanh": _gelu_tanh,
    "gelu": _gelu,
}
"""By the names of `abi.ACTIVATIONS`."""
