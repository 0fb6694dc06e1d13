"""Attention by the flash-attn 2 that comes with torch, for devices from compute capability 8.0 on.

It knows no pages, so K/V of a step's sequences are copied out of them first, whole pages at a time,
and lengths tell how far the last one counts. That is about three times the memory traffic of
flash-attn's own paged functions, and asks for nothing to be built. It has no softcap.

Its keys are not split: the number of parts would follow the longest sequence of the step. Where all
queries of a sequence see all its keys, the window has no end ahead.
"""

from array import array
from itertools import accumulate
from typing import Protocol

import torch
from torch.nn.attention.varlen import AuxRequest, varlen_attn

from neurond.attention.base import AttentionBatch, AttentionParams
from neurond.attention.sinks import with_sinks
from neurond.engine.upload import upload

PAGE_MULTIPLE_TOKENS = 256
"""Not asked for by torch: pages as large as flash-attn's keep the list of those to copy short."""
GATHER_TOKENS = 32_768
"""Tokens of K/V that are copied out of the pages at once, unless one sequence has more."""


class Varlen(Protocol):
    """`torch.nn.attention.varlen.varlen_attn`, as far as it is used here."""

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seq_q: torch.Tensor,
        cu_seq_k: torch.Tensor | None,
        max_q: int,
        max_k: int,
        *,
        return_aux: AuxRequest | None = None,
        scale: float | None = None,
        window_size: tuple[int, int] = (-1, -1),
        enable_gqa: bool = False,
        seqused_k: torch.Tensor | None = None,
        num_splits: int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]: ...


class TorchVarlenBackend:
    """Torch's own flash-attn over pages that are gathered."""

    name = "torch-varlen"
    page_multiple_tokens = PAGE_MULTIPLE_TOKENS
    can_be_recorded = False

    def __init__(self, attention: Varlen = varlen_attn) -> None:
        self._attention = attention

    def plan(self, batch: AttentionBatch) -> "_Plan":
        """Divide the step into groups of sequences."""
        groups = [
            _Group(part, first, last, two_way=two_way)
            for two_way, part in batch.by_kind()
            for first, last in _groups(part)
        ]
        return _Plan(groups, self._attention)


class _Group:
    """Sequences `first` to before `last` of a step, attended to together."""

    def __init__(self, batch: AttentionBatch, first: int, last: int, *, two_way: bool) -> None:
        self.ahead = -1 if two_way else 0
        query_lens, kv_lens = batch.query_lens[first:last], batch.kv_lens[first:last]
        width = batch.block_tables.shape[1]
        pages = [_pages(kv_len, batch.block_tokens) for kv_len in kv_lens]
        places = array("i")
        for row, count in enumerate(pages, start=first):
            places.extend(range(row * width, row * width + count))
        device = batch.block_tables.device
        self.blocks = batch.block_tables.view(-1).index_select(
            0, upload(places, torch.int32, device)
        )
        ends = accumulate((count * batch.block_tokens for count in pages), initial=0)
        self.cu_seqlens_k = upload(array("i", ends), torch.int32, device)
        starts = array("i", accumulate(query_lens, initial=0))
        self.cu_seqlens_q = upload(starts, torch.int32, device)
        self.seq_lens_k = batch.seq_lens_k[first:last]
        self.num_queries = starts[-1]
        self.max_seqlen_q = max(query_lens)
        self.max_seqlen_k = max(kv_lens)


class _Plan:
    def __init__(self, groups: list[_Group], attention: Varlen) -> None:
        self._groups = groups
        self._sizes = [group.num_queries for group in groups]
        self._attention = attention

    def attend(
        self,
        query: torch.Tensor,
        key_pages: torch.Tensor,
        value_pages: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        outs = [
            self._attend(group, part, key_pages, value_pages, params)
            for group, part in zip(self._groups, query.split(self._sizes), strict=True)
        ]
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    def _attend(
        self,
        group: _Group,
        query: torch.Tensor,
        key_pages: torch.Tensor,
        value_pages: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        out, lse = self._attention(
            query,
            key_pages.index_select(0, group.blocks).flatten(0, 1),
            value_pages.index_select(0, group.blocks).flatten(0, 1),
            group.cu_seqlens_q,
            group.cu_seqlens_k,
            group.max_seqlen_q,
            group.max_seqlen_k,
            return_aux=AuxRequest(lse=True),
            scale=params.scale,
            window_size=(-1 if params.window is None else params.window - 1, group.ahead),
            enable_gqa=True,
            seqused_k=group.seq_lens_k,
            num_splits=1,
        )
        return with_sinks(out, lse.transpose(0, 1), params)


def _groups(batch: AttentionBatch) -> list[tuple[int, int]]:
    """Return the sequences in runs of `GATHER_TOKENS`, as (first, behind the last)."""
    groups, first, gathered = [], 0, 0
    for index, kv_len in enumerate(batch.kv_lens):
        tokens = _pages(kv_len, batch.block_tokens) * batch.block_tokens
        if index > first and gathered + tokens > GATHER_TOKENS:
            groups.append((first, index))
            first, gathered = index, 0
        gathered += tokens
    groups.append((first, len(batch.kv_lens)))
    return groups


def _pages(kv_len: int, block_tokens: int) -> int:
    return -(-kv_len // block_tokens)
