"""Computes a scheduled batch with the CPU kernels: one call for the step, one for its tokens."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from neurond.engine.host_sampler import sample_on_host
from neurond.engine.masks import masks_of
from neurond.kernels.abi import BLOCK_TOKENS
from neurond.kernels.library import StepColumns
from neurond.kernels.memory import Buffer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_core.errors import ErrorInfo
    from neurond.engine.batch import SampledToken, ScheduledBatch
    from neurond.kernels.library import Kernels, Pool
    from neurond.kernels.memory import KvPages
    from neurond.kernels.packed_model import PackedModel


class HostRunner:
    """Runs one packed model. Called from the actor's one thread; the pool is the device's."""

    def __init__(
        self,
        kernels: Kernels,
        pool: Pool,
        model: PackedModel,
        pages: KvPages,
        *,
        max_tokens: int,
        max_sequences: int,
        max_rows: int,
    ) -> None:
        """Reserve what steps need that choose at most `max_rows` tokens.

        Raises:
            OSError: there is no such memory.
        """
        self._kernels = kernels
        self._pool = pool
        self._model = model
        self._pages = pages
        bounds = (max_tokens, max_sequences, max_rows)
        self._scratch = Buffer(kernels.scratch_bytes(model.struct, pool, *bounds))
        vocab_size = model.decoder.vocab_size
        logits = Buffer(4 * max_rows * vocab_size)
        self._logits = logits.bytes.view(np.float32).reshape(max_rows, vocab_size)
        self._logits_at = logits.address
        self._sampler = kernels.sampler(pool, vocab_size)

    def execute(self, batch: ScheduledBatch) -> Sequence[SampledToken | ErrorInfo]:
        """See `Runner.execute`."""
        width = -(-batch.max_seqlen_k // BLOCK_TOKENS)
        columns = StepColumns(
            token_ids=batch.token_ids,
            positions=batch.positions,
            slots=batch.slot_mapping,
            cu_seqlens_q=batch.cu_seqlens_q,
            seq_lens_k=batch.seq_lens_k,
            block_tables=_flat(batch.block_tables, width),
            table_width=width,
            sample_rows=batch.sample_rows,
        )
        self._kernels.step(
            self._pool, self._model.struct, columns, self._pages, self._scratch, self._logits
        )
        masks = masks_of(batch.rows)
        sampled = sample_on_host(self._sampler, self._logits_at, batch.rows, masks.allowed)
        return masks.settle(sampled)


def _flat(tables: Sequence[array[int]], width: int) -> array[int]:
    """Return the tables one after another, each cut or padded to `width`."""
    flat = array("i")
    for table in tables:
        flat.extend(table[:width])
        flat.extend([0] * (width - len(table)))
    return flat
