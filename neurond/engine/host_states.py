"""Vectors from a decoder that the CPU kernels compute: the last states of whole inputs, pooled.

A step has K/V pages of its own, which go with it: nothing is shared with the engine that generates
with the same weights but the weights and the threads.
"""

from __future__ import annotations

from array import array
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from cortex_core.errors import CortexError, OutOfMemory
from neurond.engine.blocks import blocks_for
from neurond.engine.host_sizes import EMBED_BLOCKS
from neurond.kernels.abi import BLOCK_TOKENS
from neurond.kernels.library import StepColumns
from neurond.kernels.memory import Buffer
from neurond.models.pooling import vectors_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_core.errors import ErrorInfo
    from neurond.engine.embedding import EmbedInput
    from neurond.kernels.library import Kernels, Pool
    from neurond.kernels.packed_model import PackedModel
    from neurond.sources.prepared import Pooling


class HostStates:
    """A packed model as an `neurond.engine.embedding.Embedder`; the pool is the device's."""

    def __init__(self, kernels: Kernels, pool: Pool, model: PackedModel, pooling: Pooling) -> None:
        self._kernels = kernels
        self._pool = pool
        self._model = model
        self._pooling = pooling
        self.dimensions = model.decoder.hidden

    def embed(self, inputs: Sequence[EmbedInput]) -> Sequence[bytes | ErrorInfo]:
        """See `Embedder.embed`. Inputs that the host has no memory for have no vector."""
        results: list[bytes | ErrorInfo] = []
        for first, stop in _steps([len(each.token_ids) for each in inputs]):
            try:
                results += self._step(inputs[first:stop])
            except CortexError as ex:  # those of other steps have theirs all the same
                results += [ex.info()] * (stop - first)
        return results

    def _step(self, inputs: Sequence[EmbedInput]) -> Sequence[bytes | ErrorInfo]:
        columns, num_blocks = _columns([each.token_ids for each in inputs])
        num_tokens = len(columns.token_ids)
        model = self._model.struct
        states = np.empty((num_tokens, self.dimensions), np.float32)
        pages = self._kernels.kv_pages(model, num_blocks)
        bounds = (num_tokens, len(inputs), num_tokens)
        try:
            scratch = Buffer(self._kernels.scratch_bytes(model, self._pool, *bounds))
        except OSError as ex:
            raise OutOfMemory(
                f"cannot reserve memory for a step of {num_tokens} tokens: {ex.strerror}"
            ) from ex
        self._kernels.states(self._pool, model, columns, pages, scratch, states)
        return vectors_of(states, inputs, self._pooling)


def _steps(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Return which inputs, first and behind the last, are computed at once.

    Short ones take a block each: more than one step has memory for.
    """
    firsts, used = [0], 0
    for index, length in enumerate(lengths):
        used += blocks_for(length, BLOCK_TOKENS)
        if used > EMBED_BLOCKS and index > firsts[-1]:
            firsts.append(index)
            used = blocks_for(length, BLOCK_TOKENS)
    return list(pairwise([*firsts, len(lengths)]))


def _columns(inputs: Sequence[array[int]]) -> tuple[StepColumns, int]:
    """Return a step of all inputs, each a sequence of its own, and the blocks that it takes."""
    lengths = [len(ids) for ids in inputs]
    blocks = [blocks_for(length, BLOCK_TOKENS) for length in lengths]
    first_blocks = [0, *accumulate(blocks)]
    width = max(blocks)
    columns = StepColumns(
        token_ids=array("i"),
        positions=array("i"),
        slots=array("i"),
        cu_seqlens_q=array("i", [0, *accumulate(lengths)]),
        seq_lens_k=array("i", lengths),
        block_tables=array("i"),
        table_width=width,
        sample_rows=array("i", range(sum(lengths))),
    )
    for ids, first, count in zip(inputs, first_blocks, blocks, strict=False):
        columns.token_ids.extend(ids)
        columns.positions.extend(range(len(ids)))
        columns.slots.extend(range(first * BLOCK_TOKENS, first * BLOCK_TOKENS + len(ids)))
        columns.block_tables.extend([*range(first, first + count), *[0] * (width - count)])
    return columns, first_blocks[-1]
