"""Decodes by the Triton kernels, everything else by another backend: for GPUs without flash-attn.

It reads K/V where they lie, and a step of decodes alone can be recorded. A decode's keys are cut
into the same number of parts whatever stands beside it, so attention gives it the same bits.
"""

from typing import Any

import torch

from neurond.attention import triton_kernels
from neurond.attention.base import (
    AttentionBackend,
    AttentionBatch,
    AttentionParams,
    AttentionPlan,
    JoinedPlan,
)

SPLITS = 16
PAGE_MULTIPLE_TOKENS = 256
LARGE_DIM = 128
"""Above it blocks of keys are half as long: a small GPU has no room for more beside each other."""


class PagedDecodes:
    """Any dtype, heads of one size for keys and values, from compute capability 7.5 on."""

    name = "triton"
    page_multiple_tokens = PAGE_MULTIPLE_TOKENS
    can_be_recorded = True

    def __init__(self, others: AttentionBackend) -> None:
        """`others` attends from what is no decode."""
        self._others = others

    def plan(self, batch: AttentionBatch) -> AttentionPlan:
        """Prepare one step, of both kinds where it has both."""
        if batch.num_decodes == 0:
            return self._others.plan(batch)
        if batch.num_decodes == len(batch.query_lens):
            return _Decodes(batch)
        decodes, others = batch.decodes(), batch.others()
        return JoinedPlan(
            [(_Decodes(decodes), decodes), (self._others.plan(others), others)],
        )


class _Decodes:
    def __init__(self, batch: AttentionBatch) -> None:
        self._batch = batch

    def attend(
        self,
        query: torch.Tensor,
        key_pages: torch.Tensor,
        value_pages: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        batch = self._batch
        num_sequences, num_heads, dim = query.shape
        num_kv_heads = key_pages.shape[2]
        assert key_pages.stride() == value_pages.stride(), "keys and values lie alike"
        assert query.stride(-1) == key_pages.stride(-1) == batch.block_tables.stride(-1) == 1
        sizes = kernel_sizes(dim, num_heads // num_kv_heads)
        rows = query.new_empty((num_sequences, num_heads, SPLITS), dtype=torch.float32)
        parts = rows.new_empty((*rows.shape, dim))
        split_decode: Any = triton_kernels.split_decode
        split_decode[(num_sequences, num_kv_heads, SPLITS)](
            query,
            key_pages,
            value_pages,
            batch.block_tables,
            batch.seq_lens_k,
            parts,
            rows,
            params.scale,
            params.softcap or 1.0,
            params.window or 0,
            query.stride(0),
            query.stride(1),
            *key_pages.stride()[:3],
            batch.block_tables.stride(0),
            **sizes,
            page_tokens=batch.block_tokens,
            has_window=params.window is not None,
            has_softcap=params.softcap is not None,
            num_stages=2,
        )
        out = query.new_empty(query.shape)
        join_splits: Any = triton_kernels.join_splits
        join_splits[(num_sequences * num_heads,)](
            parts,
            rows,
            params.sinks,
            out,
            num_heads,
            dim=dim,
            padded_dim=sizes["padded_dim"],
            splits=SPLITS,
            has_sinks=params.sinks is not None,
        )
        return out


def kernel_sizes(dim: int, group: int) -> dict[str, int]:
    """Return the constants of `split_decode` that heads of `dim` in groups of `group` ask for."""
    padded_dim = max(_power_of_two(dim), triton_kernels.MIN_DOT)
    return {
        "group": group,
        "padded_group": max(_power_of_two(group), triton_kernels.MIN_DOT),
        "dim": dim,
        "padded_dim": padded_dim,
        "block": 64 if padded_dim <= LARGE_DIM else 32,
        "splits": SPLITS,
    }


def _power_of_two(number: int) -> int:
    """Return the smallest one that is not less."""
    return 1 << (number - 1).bit_length()
