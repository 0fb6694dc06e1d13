"""Paged attention by flash-attn 2, for CUDA devices from compute capability 8.0 on.

Decodes go through `flash_attn_with_kvcache`, which reads the K/V of grouped heads once and can
split a long context among the device; everything else goes through `flash_attn_varlen_func`. K/V
are in the pages already, so both get block tables and lengths that include the step's own tokens.

A decode's keys are cut into `DECODE_SPLITS` parts at places that depend on its own length alone,
and prompts' are not split: left to flash-attn, the number of parts would follow how many others
share the step, and with it a token's bits.

Where all queries of a sequence see all its keys, nothing bounds what is ahead: not causal, and a
window to the left alone. flash-attn aligns both to the end of the keys.

flash-attn has no sinks. A sink only adds `exp(sink)` to the denominator of the softmax, so the
output without it, times `sigmoid(lse - sink)`, is the output with it.

Versions: 2.8.3.post2. From 2.8.4 on it reads the largest length back from the device on every paged
decode, in every layer: right, but slow, and not to be recorded in a graph.
"""

import importlib
from typing import Any, Protocol, cast

import torch
from packaging.version import InvalidVersion, Version
from torch.nn.functional import pad

from neurond.attention.base import AttentionBatch, AttentionParams, AttentionPlan, JoinedPlan
from neurond.attention.sinks import with_sinks

PAGE_MULTIPLE_TOKENS = 256
DECODE_SPLITS = 16
"""Parts of a decode's keys: enough that one sequence of 8 K/V heads occupies a large device; for
many short ones the parts cost a few percent of a step."""
FIRST_THAT_WAITS = Version("2.8.4")

Window = tuple[int, int]
UNLIMITED: Window = (-1, -1)


class VarlenAttention(Protocol):
    """`flash_attn.flash_attn_varlen_func`, as far as it is used here."""

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cu_seqlens_q: torch.Tensor,
        cu_seqlens_k: torch.Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        *,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: Window = UNLIMITED,
        softcap: float = 0.0,
        return_attn_probs: bool = False,
        block_table: torch.Tensor | None = None,
    ) -> Any: ...


class KvCacheAttention(Protocol):
    """`flash_attn.flash_attn_with_kvcache`, as far as it is used here."""

    def __call__(
        self,
        q: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        *,
        cache_seqlens: torch.Tensor | None = None,
        block_table: torch.Tensor | None = None,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: Window = UNLIMITED,
        softcap: float = 0.0,
        num_splits: int = 0,
        return_softmax_lse: bool = False,
    ) -> Any: ...


class Flash2Backend:
    """flash-attn 2 over pages of a multiple of 256 tokens."""

    name = "flash-attn-2"
    page_multiple_tokens = PAGE_MULTIPLE_TOKENS

    def __init__(
        self,
        varlen: VarlenAttention,
        with_kvcache: KvCacheAttention,
        *,
        can_be_recorded: bool = True,
    ) -> None:
        self._varlen = varlen
        self._with_kvcache = with_kvcache
        self.can_be_recorded = can_be_recorded

    def plan(self, batch: AttentionBatch) -> AttentionPlan:
        """Choose the functions for one step."""
        # Not num_decodes: a prompt may have one token left, and for steps of one query a sequence
        # `flash_attn_varlen_func` may swap heads and batch.
        if batch.max_seqlen_q == 1:
            return _DecodePlan(batch, self._with_kvcache)
        parts: list[tuple[AttentionPlan, AttentionBatch]] = []
        others = batch
        if batch.num_decodes:
            decodes, others = batch.decodes(), batch.others()
            parts.append((_DecodePlan(decodes, self._with_kvcache), decodes))
        for two_way, part in others.by_kind():
            plan: AttentionPlan
            if part.max_seqlen_q == 1:
                plan = _DecodePlan(part, self._with_kvcache)
            else:
                plan = _VarlenPlan(part, self._varlen, two_way=two_way)
            parts.append((plan, part))
        return parts[0][0] if len(parts) == 1 else JoinedPlan(parts)


def load_flash2() -> Flash2Backend:
    """Import flash-attn.

    Raises:
        ImportError: it is not installed, or not for this torch, or is another version of it that
            has other functions: flash-attn 4 installs a package of the same name.
    """
    module = importlib.import_module("flash_attn")
    try:
        varlen, with_kvcache = module.flash_attn_varlen_func, module.flash_attn_with_kvcache
        version = Version(module.__version__)
    except (AttributeError, InvalidVersion) as ex:
        raise ImportError(f"flash_attn is not flash-attn 2: {ex}") from ex
    return Flash2Backend(
        cast("VarlenAttention", varlen),
        cast("KvCacheAttention", with_kvcache),
        can_be_recorded=version < FIRST_THAT_WAITS,
    )


class _DecodePlan:
    def __init__(self, batch: AttentionBatch, attention: KvCacheAttention) -> None:
        self._batch = batch
        self._attention = attention

    def attend(
        self,
        query: torch.Tensor,
        key_pages: torch.Tensor,
        value_pages: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        out, lse = self._attention(
            query.unsqueeze(1),  # [B, 1, num_heads, head_dim]
            key_pages,
            value_pages,
            cache_seqlens=self._batch.seq_lens_k,
            block_table=self._batch.block_tables,
            softmax_scale=params.scale,
            causal=True,
            window_size=_window(params),
            softcap=params.softcap or 0.0,
            num_splits=DECODE_SPLITS,
            return_softmax_lse=True,
        )
        return with_sinks(out.squeeze(1), lse.squeeze(2), params)


class _VarlenPlan:
    def __init__(self, batch: AttentionBatch, attention: VarlenAttention, *, two_way: bool) -> None:
        self._batch = batch
        self._attention = attention
        self._two_way = two_way
        self._cu_seqlens_k = pad(batch.seq_lens_k.cumsum(0, dtype=torch.int32), (1, 0))

    def attend(
        self,
        query: torch.Tensor,
        key_pages: torch.Tensor,
        value_pages: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        out, lse, _ = self._attention(
            query,
            key_pages,
            value_pages,
            self._batch.cu_seqlens_q,
            self._cu_seqlens_k,
            self._batch.max_seqlen_q,
            self._batch.max_seqlen_k,
            softmax_scale=params.scale,
            causal=not self._two_way,
            window_size=_window(params, ahead=-1 if self._two_way else 0),
            softcap=params.softcap or 0.0,
            return_attn_probs=True,
            block_table=self._batch.block_tables,
        )
        return with_sinks(out, lse.transpose(0, 1), params)


def _window(params: AttentionParams, ahead: int = 0) -> Window:
    """flash-attn counts the keys before the query's own, and those ahead: -1 for all."""
    return UNLIMITED if params.window is None else (params.window - 1, ahead)
