"""The contract that every attention backend keeps.

Query tokens of B sequences stand flat, one sequence after another. Sequence `i` has `n` query
tokens and `m >= n` tokens of context, of which the queries are the last ones; all of the context's
K/V is in pages that the sequence's block table names in order; what slots behind it hold is finite.
Query `j` of `n` sees the keys `0 .. m - n + j`, and with a window of `w` only the last `w` of
those, its own included.

Scores are `scale * q @ k`, then `softcap * tanh(scores / softcap)` where there is a softcap. A
sink is one more logit per head that takes part in the softmax and has no value. Every query sees
at least itself.

Pages are `[num_blocks, block_tokens, num_kv_heads, head_dim]`. `num_heads` is a multiple of
`num_kv_heads`, heads of one group stand together.
"""

from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True)
class AttentionBatch:
    """Where the tokens of one step stand. Tensors are on the device, tuples on the host.

    The host's copies are for planning: a backend reads lengths there and never from the device,
    which would wait for it.
    """

    cu_seqlens_q: torch.Tensor  # int32 [B + 1]
    seq_lens_k: torch.Tensor  # int32 [B]
    block_tables: torch.Tensor
    """int32 [B, ceil(max_seqlen_k / block_tokens)], padded with the id of nobody's page: of zeros,
    where the backend cannot be recorded."""
    query_lens: tuple[int, ...]  # [B]
    kv_lens: tuple[int, ...]  # [B]
    num_decodes: int
    """The first so many sequences have one query token; of the others some may have one too."""
    max_seqlen_q: int
    max_seqlen_k: int
    block_tokens: int

    def decodes(self) -> "AttentionBatch":
        """Return the first `num_decodes` sequences, of which there is at least one."""
        count = self.num_decodes
        return self._part(slice(count), self.cu_seqlens_q[: count + 1], count)

    def others(self) -> "AttentionBatch":
        """Return the sequences behind the decodes, of which there is at least one."""
        count = self.num_decodes
        return self._part(slice(count, None), self.cu_seqlens_q[count:] - count, 0)

    def _part(self, part: slice, cu_seqlens_q: torch.Tensor, num_decodes: int) -> "AttentionBatch":
        query_lens, kv_lens = self.query_lens[part], self.kv_lens[part]
        return AttentionBatch(
            cu_seqlens_q=cu_seqlens_q,
            seq_lens_k=self.seq_lens_k[part],
            block_tables=self.block_tables[part],
            query_lens=query_lens,
            kv_lens=kv_lens,
            num_decodes=num_decodes,
            max_seqlen_q=max(query_lens),
            max_seqlen_k=max(kv_lens),
            block_tokens=self.block_tokens,
        )


@dataclass(frozen=True, slots=True)
class AttentionParams:
    """What a layer asks of attention besides its tensors."""

    scale: float
    window: int | None = None
    """Keys that a query sees at most, itself included."""
    softcap: float | None = None
    sinks: torch.Tensor | None = None  # [num_heads]


class AttentionPlan(Protocol):
    """One step, prepared once and used by every layer of the model."""

    def attend(
        self,
        query: torch.Tensor,
        key_pages: torch.Tensor,
        value_pages: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        """Attend from `query` [T, num_heads, head_dim]; K/V of the step are in the pages already.

        Returns:
            [T, num_heads, value head_dim], of the query's dtype.
        """
        ...


class MixedPlan:
    """Decodes, and what stands behind them, each by a plan of its own."""

    def __init__(self, decodes: AttentionPlan, others: AttentionPlan, num_decodes: int) -> None:
        self._decodes = decodes
        self._others = others
        self._num_decodes = num_decodes

    def attend(
        self,
        query: torch.Tensor,
        key_pages: torch.Tensor,
        value_pages: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        """See `AttentionPlan.attend`."""
        first, rest = query[: self._num_decodes], query[self._num_decodes :]
        return torch.cat(
            (
                self._decodes.attend(first, key_pages, value_pages, params),
                self._others.attend(rest, key_pages, value_pages, params),
            )
        )


class AttentionBackend(Protocol):
    """A way to compute paged attention on one kind of device. Holds no state of a step."""

    @property
    def name(self) -> str:
        """As reported in /discovery."""
        ...

    @property
    def page_multiple_tokens(self) -> int:
        """A page's tokens are a multiple of this."""
        ...

    @property
    def can_be_recorded(self) -> bool:
        """Whether a step of decodes alone can be recorded once and replayed for other sequences.

        Then its plan reads nothing of the batch but tensors, `max_seqlen_q`, and how many
        sequences there are; what the host knows of lengths are upper bounds. Of pages it reads no
        further than a sequence is long.
        """
        ...

    def plan(self, batch: AttentionBatch) -> AttentionPlan:
        """Prepare one step without waiting for the device."""
        ...
