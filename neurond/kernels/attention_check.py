"""Whether a library computes attention rightly on this processor, as `self_check` asks of products.

One layer is computed over a prompt and compared with its formula. Tokens, queries, keys and values
are numbers that bfloat16 holds exactly; weights are not, so a result is right if it is near.
"""

from array import array
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from neurond.kernels import abi
from neurond.kernels.library import Kernels, Pool, StepColumns
from neurond.kernels.memory import Buffer, KvFormat, address_of

PIECES: Final = (514, 1, 5, 20)
"""Tokens of each step: many rows and few, and keys of more than one span of 512."""
NUM_TOKENS: Final = sum(PIECES)
COMPARED: Final = (*range(0, PIECES[0], 5), *range(PIECES[0], NUM_TOKENS))
"""Tokens whose results are looked at, as the formula takes longer than the kernels."""
HIDDEN: Final = 64
NUM_HEADS: Final = 2
HEAD_DIM: Final = 48
"""Not a multiple of the 32 dimensions that a tile has."""
SCALE: Final = 0.3
EIGHTH: Final = np.float32(1 / 8)
CLOSE: Final[dict[KvFormat, float]] = {"bf16": 0.05, "int8": 0.1}
"""The largest error of a result, which is about 1."""


def wrong_attention(kernels: Kernels) -> str | None:
    """Return what is wrong with attention, or None; takes some milliseconds.

    Raises:
        OSError: there is no memory for it.
    """
    layer = _OneLayer(kernels)
    with kernels.pool(1) as pool:
        for kv_format in get_args(KvFormat):
            found = layer.states(pool, kv_format)[[*COMPARED]]
            error = np.abs(found - layer.expected).max()
            if not error < CLOSE[kv_format]:  # it may be no number
                return f"it computes attention over {kv_format} wrongly on this processor"
    return None


class _OneLayer:
    """A model of one layer without a feed-forward part; each token has a row of its own in it."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        random = np.random.default_rng(0)
        width = NUM_HEADS * HEAD_DIM
        # Rows of ones of either sign have the norm 1; eighths are rounded by no product either.
        tokens = _signs(random, NUM_TOKENS, HIDDEN)
        qkv = _signs(random, width + 2 * HEAD_DIM, HIDDEN) * EIGHTH
        out = _signs(random, HIDDEN, width) * EIGHTH
        self.expected = _expected(tokens, qkv, out)
        self._embedding = (tokens.view(np.uint32) >> 16).astype(np.uint16)
        self._ones = np.ones(HIDDEN, np.float32)
        self._packed: list[Buffer] = []
        nothing = np.zeros((2 * abi.GROUP, HIDDEN), np.float32)
        self._layer = abi.Layer(
            input_norm=address_of(self._ones),
            qkv=self._pack(qkv),
            o=self._pack(out),
            pre_ffn_norm=address_of(self._ones),
            gate_up=self._pack(nothing),
            down=self._pack(nothing[:, : abi.GROUP]),
            num_heads=NUM_HEADS,
            num_kv_heads=1,
            head_dim=HEAD_DIM,
            rope=-1,
            scale=SCALE,
        )
        self._model = abi.Model(
            vocab_size=NUM_TOKENS,
            hidden=HIDDEN,
            num_layers=1,
            embedding_scale=1.0,
            embedding=address_of(self._embedding),
            final_norm=address_of(self._ones),
            head=self._pack(nothing),
            layers=(abi.Layer * 1)(self._layer),
        )

    def _pack(self, weights: NDArray[np.float32]) -> abi.Linear:
        weights = np.ascontiguousarray(weights)
        code = abi.FORMATS["bf16"]
        buffer = Buffer(self._kernels.packed_bytes("bf16", *weights.shape))
        self._packed.append(buffer)
        linear = abi.Linear(code, *weights.shape, 0, buffer.address)
        self._kernels.pack_rows(linear, 0, weights)
        return linear

    def states(self, pool: Pool, kv_format: KvFormat) -> NDArray[np.float32]:
        """Return the states of all tokens, [NUM_TOKENS, HIDDEN], computed piece by piece."""
        num_blocks = -(-NUM_TOKENS // abi.BLOCK_TOKENS)
        pages = self._kernels.kv_pages(self._model, num_blocks, kv_format)
        sizes = max(PIECES), 1, max(PIECES)
        scratch = Buffer(self._kernels.scratch_bytes(self._model, pool, *sizes))
        states = np.empty((NUM_TOKENS, HIDDEN), np.float32)
        start = 0
        for piece in PIECES:
            stop = start + piece
            columns = StepColumns.one_sequence(array("i", range(start, stop)), start)
            step = pool, self._model, columns, pages, scratch
            self._kernels.states(*step, states[start:stop])
            start = stop
        return states


def _signs(random: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    return random.choice(np.array([-1, 1], np.float32), (rows, columns)).astype(np.float32)


def _expected(
    tokens: NDArray[np.float32], qkv: NDArray[np.float32], out: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return what the layer makes of the tokens that are compared, behind the last norm."""
    compared = np.array(COMPARED)
    *queries, keys, values = np.split(tokens @ qkv.T, NUM_HEADS + 2, axis=1)
    unseen = compared[:, None] < np.arange(NUM_TOKENS)
    heads = []
    for head in queries:
        scores = head[compared] @ keys.T * np.float32(SCALE)
        scores[unseen] = -np.inf
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(weights @ values / weights.sum(axis=1, keepdims=True))
    states = tokens[compared] + np.hstack(heads) @ out.T
    normed: NDArray[np.float32] = states / np.sqrt(np.mean(states**2, axis=1, keepdims=True))
    return normed
