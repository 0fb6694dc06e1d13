"""Steps of decodes alone, recorded once for each of some sizes and replayed with other sequences.

Submitting a model's kernels one by one takes the host longer than a GPU takes to compute a token,
so a step is recorded as one graph. A graph computes on the very tensors that it was recorded with:
a step writes its sequences into `_inputs`, replays, and takes the logits from the same place again.

Sizes are few, so the rows behind a step's sequences compute something too: a sequence of one token
in the blank block. Nothing reads what they write: a backend that can be recorded reads pages as far
as a sequence is long, and no other sequence's table has the blank block within its length.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from neurond.attention.base import AttentionBatch
from neurond.engine.batch import ScheduledBatch
from neurond.engine.blocks import blocks_for
from neurond.engine.kv_cache import KvCache
from neurond.engine.upload import overwrite

LARGEST = 256
"""Sequences of the largest graph; larger steps are submitted kernel by kernel."""


class RecordedStep(Protocol):
    """Kernels in order, on tensors that are always the same."""

    @property
    def output(self) -> torch.Tensor:
        """What the function returned; `replay` computes it anew, in the same place."""
        ...

    def replay(self) -> None:
        """Submit the kernels, behind all that was submitted before; does not wait."""
        ...


class Recorder(Protocol):
    """Records what a function submits to the device."""

    def record(self, compute: Callable[[], torch.Tensor]) -> RecordedStep:
        """Call `compute`, which must not wait for the device, and record its kernels.

        Raises:
            NotRecordable: it waits, or does something else that cannot be recorded.
        """
        ...


class NotRecordable(Exception):
    """A step cannot be recorded; the device is sound."""


@dataclass(frozen=True, slots=True)
class DecodeColumns:
    """The inputs of a step of one query token a sequence, [size] each, on the device."""

    token_ids: torch.Tensor  # int64
    positions: torch.Tensor  # int64
    slots: torch.Tensor  # int64
    attention: AttentionBatch


class DecodeGraphs:
    """The graphs of one runner, and the tensors that they compute on."""

    def __init__(
        self,
        recorder: Recorder,
        compute: Callable[[DecodeColumns], torch.Tensor],
        cache: KvCache,
        *,
        max_sequences: int,
        context_tokens: int,
    ) -> None:
        """Record a step for each size; leaves the blank block written to.

        Args:
            compute: submits a step's kernels and returns its logits [size, V].

        Raises:
            NotRecordable: the first one cannot be recorded.
            torch.OutOfMemoryError: the device has no memory for them.
        """
        self._cache = cache
        self._width = blocks_for(context_tokens, cache.block_tokens)
        sizes = graph_sizes(max_sequences)
        self._inputs = torch.zeros(
            sizes[-1] * (4 + self._width), dtype=torch.int32, device=cache.device
        )
        self._cu_seqlens_q = torch.arange(sizes[-1] + 1, dtype=torch.int32, device=cache.device)
        self._graphs: dict[int, RecordedStep] = {}
        self._logits: torch.Tensor | None = None
        # The largest first: what it takes is enough for each of the others, which share it.
        for size in reversed(sizes):
            self._fill(size, None)
            self._graphs[size] = recorder.record(partial(self._compute, compute, size))
        self._sizes = sizes

    def run(self, batch: ScheduledBatch) -> torch.Tensor | None:
        """Submit a step; return its logits [S, V], to be used before the next one, or None.

        None: the step is not one of decodes alone, or has more sequences than any graph.
        """
        count = batch.num_sequences
        if batch.num_decodes != count or count > self._sizes[-1]:
            return None
        size = next(size for size in self._sizes if size >= count)
        self._fill(size, batch)
        graph = self._graphs[size]
        graph.replay()
        return graph.output[:count]

    def _compute(self, compute: Callable[[DecodeColumns], torch.Tensor], size: int) -> torch.Tensor:
        logits = compute(self._columns(size))
        if self._logits is None:
            self._logits = torch.empty_like(logits)
        # Left where they are, each graph would keep memory for its own: together several times
        # those of the largest.
        return self._logits[:size].copy_(logits)

    def _columns(self, size: int) -> DecodeColumns:
        """Return views of `_inputs`, as `_fill` writes them, and what is made of them."""
        inputs = self._inputs[: size * (4 + self._width)]
        token_ids, positions, slots, kv_lens = inputs[: 4 * size].view(4, size)
        context_tokens = self._width * self._cache.block_tokens
        return DecodeColumns(
            token_ids=token_ids.to(torch.int64),
            positions=positions.to(torch.int64),
            slots=slots.to(torch.int64),
            attention=AttentionBatch(
                cu_seqlens_q=self._cu_seqlens_q[: size + 1],
                seq_lens_k=kv_lens,
                block_tables=inputs[4 * size :].view(size, self._width),
                query_lens=(1,) * size,
                kv_lens=(context_tokens,) * size,
                num_decodes=size,
                max_seqlen_q=1,
                max_seqlen_k=context_tokens,
                block_tokens=self._cache.block_tokens,
            ),
        )

    def _fill(self, size: int, batch: ScheduledBatch | None) -> None:
        """Write the sequences of `batch`, and behind them rows that compute nothing of use."""
        blanks = array("i", [self._cache.blank_block])
        spare = size if batch is None else size - batch.num_sequences
        values = array("i")
        for column, filler in (
            (batch and batch.token_ids, 0),
            (batch and batch.positions, 0),
            (batch and batch.slot_mapping, self._cache.blank_block * self._cache.block_tokens),
            (batch and batch.seq_lens_k, 1),
        ):
            values.extend(column or ())
            values.extend([filler] * spare)
        for table in batch.block_tables if batch is not None else ():
            values.extend(table[: self._width])
            values.extend(blanks * (self._width - len(table)))
        values.extend(blanks * (spare * self._width))
        overwrite(self._inputs[: len(values)], values)


def graph_sizes(max_sequences: int) -> list[int]:
    """Return the sizes to record, ascending: close to each other where there are few sequences."""
    largest = min(max_sequences, LARGEST)
    sizes = [1, 2, 4, *range(8, 64, 8), *range(64, LARGEST, 32)]
    return [*(size for size in sizes if size < largest), largest]
