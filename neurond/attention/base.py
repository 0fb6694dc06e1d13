"""The contract that every attention backend keeps.

Query tokens of B sequences stand flat, one sequence after another. Sequence `i` has `n` query
tokens and `m >= n` tokens of context, of which the queries are the last ones; all of the context's
K/V is in pages that the sequence's block table names in order; what slots behind it hold is finite.
Query `j` of `n` sees the keys `0 .. m - n + j`, and with a window of `w` none of those before
`m - n + j - w + 1`, so `w` of them, its own included. Where the sequence is two-way it sees all `m`
keys, with a window those from the same one on. So a run of tokens that see each other both ways,
such as an image's, is a sequence of its own to a backend, and so are the tokens before it and
behind it, with the same block table.

Scores are `scale * q @ k`, then `softcap * tanh(scores / softcap)` where there is a softcap. A
sink is one more logit per head that takes part in the softmax and has no value. Every query sees
at least itself.

Pages are `[num_blocks, block_tokens, num_kv_heads, head_dim]`. `num_heads` is a multiple of
`num_kv_heads`, heads of one group stand together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
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
    two_way: tuple[bool, ...] = ()  # [B]
    """Which sequences are; empty where none is."""

    def decodes(self) -> "AttentionBatch":
        """Return the first `num_decodes` sequences, of which there is at least one."""
        return self.part(0, self.num_decodes)

    def others(self) -> "AttentionBatch":
        """Return the sequences behind the decodes, of which there is at least one."""
        return self.part(self.num_decodes, len(self.query_lens))

    def by_kind(self) -> "list[tuple[bool, AttentionBatch]]":
        """Return runs of sequences that are all two-way or all not, and whether they are.

        One of a single query sees the same keys either way, and is not.
        """
        pairs = zip(self.two_way, self.query_lens, strict=True) if self.two_way else ()
        kinds = [two_way and query_len > 1 for two_way, query_len in pairs]
        if not any(kinds):
            return [(False, self)]
        runs, first = [], 0
        for two_way, run in groupby(kinds):
            stop = first + len(list(run))
            runs.append((two_way, self.part(first, stop)))
            first = stop
        return runs

    def part(self, first: int, stop: int) -> "AttentionBatch":
        """Return sequences `first` to before `stop`, of which there is at least one."""
        part = slice(first, stop)
        query_lens, kv_lens = self.query_lens[part], self.kv_lens[part]
        cu_seqlens_q = self.cu_seqlens_q[first : stop + 1]
        return AttentionBatch(
            cu_seqlens_q=cu_seqlens_q - sum(self.query_lens[:first]) if first else cu_seqlens_q,
            seq_lens_k=self.seq_lens_k[part],
            block_tables=self.block_tables[part],
            query_lens=query_lens,
            kv_lens=kv_lens,
            num_decodes=max(0, min(self.num_decodes, stop) - first),
            max_seqlen_q=max(query_lens),
            max_seqlen_k=max(kv_lens),
            block_tokens=self.block_tokens,
            two_way=self.two_way[part],
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


class JoinedPlan:
    """Parts of a step that stand one behind another, each by a plan of its own."""

    def __init__(self, parts: Sequence[tuple[AttentionPlan, AttentionBatch]]) -> None:
        self._plans = [plan for plan, _ in parts]
        self._sizes = [sum(batch.query_lens) for _, batch in parts]

    def attend(
        self,
        query: torch.Tensor,
        key_pages: torch.Tensor,
        value_pages: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        """See `AttentionPlan.attend`."""
        return torch.cat(
            [
                plan.attend(part, key_pages, value_pages, params)
                for plan, part in zip(self._plans, query.split(self._sizes), strict=True)
            ]
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
