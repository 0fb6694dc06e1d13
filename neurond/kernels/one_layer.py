"""A decoder of one layer over tokens that are given as numbers, for checks of a library."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from neurond.kernels import abi
from neurond.kernels.library import Kernels, Pool, StepColumns
from neurond.kernels.memory import Buffer, KvFormat, address_of

HIDDEN: Final = 64
NUM_HEADS: Final = 2
HEAD_DIM: Final = 48
"""Not a multiple of the 32 dimensions that a tile has."""
SCALE: Final = 0.3
EIGHTH: Final = np.float32(1 / 8)
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """What a layer computes with; one K/V head, no rotation, norms of ones."""

    tokens: Floats
    """[tokens, HIDDEN], of which bfloat16 keeps what it can."""
    qkv: Floats  # [(NUM_HEADS + 2) * HEAD_DIM, HIDDEN]
    out: Floats  # [HIDDEN, NUM_HEADS * HEAD_DIM]
    gate_up: Floats  # [2 * n, HIDDEN]
    down: Floats  # [HIDDEN, n]


class OneLayer:
    """The layer in packed weights. Each token has a row of its own in the embedding."""

    def __init__(self, kernels: Kernels, weights: LayerWeights, activation: str = "silu") -> None:
        """Raises OSError if there is no memory for it."""
        self._kernels = kernels
        self._num_tokens = len(weights.tokens)
        self._embedding = (weights.tokens.view(np.uint32) >> 16).astype(np.uint16)
        self._ones = np.ones(HIDDEN, np.float32)
        self._packed: list[Buffer] = []
        layer = abi.Layer(
            input_norm=address_of(self._ones),
            qkv=self._pack(weights.qkv),
            o=self._pack(weights.out),
            pre_ffn_norm=address_of(self._ones),
            gate_up=self._pack(weights.gate_up),
            down=self._pack(weights.down),
            num_heads=NUM_HEADS,
            num_kv_heads=1,
            head_dim=HEAD_DIM,
            rope=-1,
            activation=abi.ACTIVATIONS[activation],
            scale=SCALE,
        )
        self._model = abi.Model(
            vocab_size=self._num_tokens,
            hidden=HIDDEN,
            num_layers=1,
            embedding_scale=1.0,
            embedding=address_of(self._embedding),
            final_norm=address_of(self._ones),
            head=self._pack(np.zeros((abi.PANEL, HIDDEN), np.float32)),
            layers=(abi.Layer * 1)(layer),
        )

    def _pack(self, weights: Floats) -> abi.Linear:
        weights = np.ascontiguousarray(weights)
        code = abi.FORMATS["bf16"]
        buffer = Buffer(self._kernels.packed_bytes("bf16", *weights.shape))
        self._packed.append(buffer)
        linear = abi.Linear(code, *weights.shape, 0, buffer.address)
        self._kernels.pack_rows(linear, 0, weights)
        return linear

    def states(self, pool: Pool, kv_format: KvFormat, pieces: Sequence[int]) -> Floats:
        """Return the states of all tokens, [tokens, HIDDEN], computed in steps of so many.

        Raises:
            OSError: there is no memory for it.
        """
        assert sum(pieces) == self._num_tokens
        num_blocks = -(-self._num_tokens // abi.BLOCK_TOKENS)
        pages = self._kernels.kv_pages(self._model, num_blocks, kv_format)
        sizes = max(pieces), 1, max(pieces)
        scratch = Buffer(self._kernels.scratch_bytes(self._model, pool, *sizes))
        states = np.empty((self._num_tokens, HIDDEN), np.float32)
        start = 0
        for piece in pieces:
            stop = start + piece
            columns = StepColumns.one_sequence(array("i", range(start, stop)), start)
            step = pool, self._model, columns, pages, scratch
            self._kernels.states(*step, states[start:stop])
            start = stop
        return states

    def states_are_alike(self, pool: Pool, kv_format: KvFormat, pieces: Sequence[int]) -> bool:
        """Tell whether every token's states have the same bits in such steps and in one."""
        whole = self.states(pool, kv_format, [self._num_tokens])
        return np.array_equal(self.states(pool, kv_format, pieces), whole)


def signs(random: np.random.Generator, rows: int, columns: int) -> Floats:
    """Return ones of either sign: rows of them have the norm 1, and eighths of them are exact."""
    return random.choice(np.array([-1, 1], np.float32), (rows, columns)).astype(np.float32)


def uneven(random: np.random.Generator, rows: int, columns: int) -> Floats:
    """Return numbers whose sums are rounded, differently in another order; rows of about 1."""
    return random.standard_normal((rows, columns), np.float32)
