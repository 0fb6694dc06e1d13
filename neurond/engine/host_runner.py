"""Computes a scheduled batch with the CPU kernels: one call for the step, one for its tokens."""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cortex_core.errors import InternalError
from neurond.engine.blocks import blocks_for
from neurond.engine.host_sampler import sample_on_host
from neurond.engine.host_sizes import FLOAT_BYTES, StepBounds
from neurond.engine.masks import masks_of
from neurond.engine.memory_ahead import MemoryAhead
from neurond.engine.query_parts import query_parts
from neurond.kernels.abi import BLOCK_TOKENS
from neurond.kernels.library import StepColumns
from neurond.kernels.memory import Buffer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cortex_core.errors import ErrorInfo
    from neurond.engine.batch import ImageQueries, SampledToken, ScheduledBatch
    from neurond.kernels.library import Kernels, Pool
    from neurond.kernels.memory import KvPages
    from neurond.kernels.packed_model import PackedModel


class Tower(Protocol):
    """What looks at images; `neurond.engine.vision` has it, which needs torch."""

    @property
    def two_way_tokens(self) -> int:
        """See `Vision`."""
        ...

    @property
    def weights_bytes(self) -> int: ...

    def embeds(
        self, with_images: Sequence[ImageQueries]
    ) -> tuple[array[int], NDArray[np.float32] | None]:
        """See `Vision.embeds`."""
        ...


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
        vision: Tower | None = None,
    ) -> None:
        """Reserve what steps need that choose at most `max_rows` tokens.

        `vision` looks at images; None where the model takes text only.

        Raises:
            OSError: there is no such memory.
        """
        self._kernels = kernels
        self._pool = pool
        self._model = model
        self._pages = pages
        self._vision = vision
        self._bounds = StepBounds.of(
            max_tokens=max_tokens,
            max_sequences=max_sequences,
            max_rows=max_rows,
            two_way_tokens=vision.two_way_tokens if vision is not None else 0,
        )
        self._scratch = Buffer(kernels.scratch_bytes(model.struct, pool, *self._bounds))
        self._ahead = MemoryAhead(model, pages, self._scratch)
        vocab_size = model.decoder.vocab_size
        logits = Buffer(FLOAT_BYTES * max_rows * vocab_size)
        self._logits = logits.bytes.view(np.float32).reshape(max_rows, vocab_size)
        self._logits_at = logits.address
        self._sampler = kernels.sampler(pool, vocab_size)

    def make_resident(self, frontier: int) -> bool:
        """See `MemoryAhead.extend`."""
        return self._ahead.extend(frontier)

    def stepped(self, took_s: float) -> None:
        """See `MemoryAhead.stepped`."""
        self._ahead.stepped(took_s)

    def execute(self, batch: ScheduledBatch) -> Sequence[SampledToken | ErrorInfo]:
        """See `Runner.execute`.

        Raises:
            RowFailed: an image of that row cannot be computed.
            InternalError: the step is larger than what memory was reserved for.
        """
        columns = _columns(batch)
        if batch.with_images:
            assert self._vision is not None, "a model of text got images"
            _put_images(columns, batch, self._vision)
        self._refuse_oversized(columns)
        self._kernels.step(
            self._pool, self._model.struct, columns, self._pages, self._scratch, self._logits
        )
        masks = masks_of(batch.rows)
        sampled = sample_on_host(self._sampler, self._logits_at, batch.rows, masks.allowed)
        return masks.settle(sampled)

    def _refuse_oversized(self, columns: StepColumns) -> None:
        """Keep the kernels, which look at no bound, from writing beyond the scratch."""
        sizes = len(columns.token_ids), len(columns.seq_lens_k), len(columns.sample_rows)
        if any(size > bound for size, bound in zip(sizes, self._bounds, strict=True)):
            raise InternalError(
                "cannot compute a step of {} tokens, {} sequences and {} rows: ".format(*sizes)
                + "memory is reserved for {}, {} and {}".format(*self._bounds)
            )


def _columns(batch: ScheduledBatch) -> StepColumns:
    width = blocks_for(batch.max_seqlen_k, BLOCK_TOKENS)
    return StepColumns(
        token_ids=batch.token_ids,
        positions=batch.positions,
        slots=batch.slot_mapping,
        cu_seqlens_q=batch.cu_seqlens_q,
        seq_lens_k=batch.seq_lens_k,
        block_tables=_flat(batch.block_tables, width),
        table_width=width,
        sample_rows=batch.sample_rows,
    )


def _put_images(columns: StepColumns, batch: ScheduledBatch, vision: Tower) -> None:
    """Put features in place of placeholders, and let those see each other that do."""
    columns.embed_rows, columns.embeds = vision.embeds(batch.with_images)
    for row in columns.embed_rows:
        columns.token_ids[row] = 0  # a placeholder can be beyond the embedding
    parts = query_parts(batch)
    if not any(part.two_way for part in parts):
        return
    tables = [batch.block_tables[part.sequence] for part in parts]
    columns.cu_seqlens_q = array("i", accumulate((part.num_queries for part in parts), initial=0))
    columns.seq_lens_k = array("i", (part.kv_len for part in parts))
    columns.block_tables = _flat(tables, columns.table_width)
    columns.two_way = array("i", (part.two_way for part in parts))


def _flat(tables: Sequence[array[int]], width: int) -> array[int]:
    """Return the tables one after another, each cut or padded to `width`."""
    flat = array("i")
    for table in tables:
        flat.extend(table[:width])
        flat.extend([0] * (width - len(table)))
    return flat
