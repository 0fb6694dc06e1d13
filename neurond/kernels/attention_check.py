"""Whether a library computes attention rightly on this processor, as `self_check` asks of products.

One layer is computed over a prompt and compared with its formula. Tokens, queries, keys and values
are numbers that bfloat16 holds exactly; weights are not, so a result is right if it is near. With
other numbers, of which every sum is rounded, its bits are compared with those of another cut of the
prompt: few rows are computed by other instructions than many are.
"""

from collections.abc import Callable
from typing import Final, get_args

import numpy as np

from neurond.kernels import abi
from neurond.kernels.library import Kernels
from neurond.kernels.memory import KvFormat
from neurond.kernels.one_layer import (
    EIGHTH,
    HEAD_DIM,
    HIDDEN,
    NUM_HEADS,
    SCALE,
    Floats,
    LayerWeights,
    OneLayer,
    signs,
    uneven,
)

PIECES: Final = (514, 1, 2, 3, 4, 5, 20)
"""Tokens of each step: many rows and few, and keys of more than one span of 512."""
NUM_TOKENS: Final = sum(PIECES)
COMPARED: Final = (*range(0, PIECES[0], 5), *range(PIECES[0], NUM_TOKENS))
"""Tokens whose results are looked at, as the formula takes longer than the kernels."""
CLOSE: Final[dict[KvFormat, float]] = {"bf16": 0.05, "int8": 0.1}
"""The largest error of a result, which is about 1."""
_WIDTH: Final = NUM_HEADS * HEAD_DIM


def wrong_attention(kernels: Kernels) -> str | None:
    """Return what is wrong with attention, or None; takes some milliseconds.

    Raises:
        OSError: there is no memory for it.
    """
    exact = _weights(signs)
    layer, rounded = OneLayer(kernels, exact), OneLayer(kernels, _weights(uneven))
    expected = _expected(exact)
    with kernels.pool(1) as pool:
        for kv_format in get_args(KvFormat):
            found = layer.states(pool, kv_format, PIECES)[[*COMPARED]]
            error = np.abs(found - expected).max()
            if not error < CLOSE[kv_format]:  # it may be no number
                return f"it computes attention over {kv_format} wrongly on this processor"
            if not rounded.states_are_alike(pool, kv_format, PIECES):
                return (
                    f"the bits of attention over {kv_format} depend on its number of rows on this "
                    "processor"
                )
    return None


def _weights(make: Callable[[np.random.Generator, int, int], Floats]) -> LayerWeights:
    """Return a layer without a feed-forward part."""
    random = np.random.default_rng(0)
    nothing = np.zeros((2 * abi.GROUP, HIDDEN), np.float32)
    return LayerWeights(
        tokens=make(random, NUM_TOKENS, HIDDEN),
        qkv=make(random, _WIDTH + 2 * HEAD_DIM, HIDDEN) * EIGHTH,
        out=make(random, HIDDEN, _WIDTH) * EIGHTH,
        gate_up=nothing,
        down=nothing[:, : abi.GROUP],
    )


def _expected(layer: LayerWeights) -> Floats:
    """Return what the layer makes of the tokens that are compared, behind the last norm."""
    compared = np.array(COMPARED)
    *queries, keys, values = np.split(layer.tokens @ layer.qkv.T, NUM_HEADS + 2, axis=1)
    unseen = compared[:, None] < np.arange(NUM_TOKENS)
    heads = []
    for head in queries:
        scores = head[compared] @ keys.T * np.float32(SCALE)
        scores[unseen] = -np.inf
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(weights @ values / weights.sum(axis=1, keepdims=True))
    states = layer.tokens[compared] + np.hstack(heads) @ layer.out.T
    normed: Floats = states / np.sqrt(np.mean(states**2, axis=1, keepdims=True))
    return normed
