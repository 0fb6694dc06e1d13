"""Paged attention in plain torch: the CPU's backend, and the oracle for every other one.

Decodes are gathered into padded batches of similar length, so that a long context beside short
ones costs at most twice its share; the heads of a group stand in for query positions, so K/V are
not repeated. Prefills go one sequence at a time, from the first block that a window reaches on.
Gather indices and masks are made once per step and kind of layer, not once per layer, from lengths
that the host knows.

What a step takes beside the pages is bounded on any device: a group of decodes gathers
`GATHER_TOKENS` at most, or one sequence. Torch's own kernels for GPUs take a mask or grouped heads
but not both, and what serves both writes all scores down; so prompts are cut there to `MAX_SCORES`.
"""

from collections import defaultdict
from typing import Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention

from neurond.attention.base import AttentionBatch, AttentionParams
from neurond.engine.upload import upload

GATHER_TOKENS = 32_768
"""Tokens of K/V, padding included, that are copied out of the pages at once."""
MAX_SCORES = 1 << 24
"""Scores that a prompt's part on a GPU has at once, over all heads: 64 MiB in float32."""


class ReferenceBackend:
    """Any dtype, any head size, any device."""

    name = "torch-reference"
    page_multiple_tokens = 1
    can_be_recorded = False

    def plan(self, batch: AttentionBatch) -> "ReferencePlan":
        """Prepare the gathers of one step."""
        return ReferencePlan(batch)


class _Part(Protocol):
    """Some sequences of a step, attended to together."""

    @property
    def tokens(self) -> torch.Tensor | slice:
        """Their places among the step's tokens."""
        ...

    def attend(
        self,
        query: torch.Tensor,
        key_pages: torch.Tensor,
        value_pages: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor: ...


class ReferencePlan:
    """The parts of one step."""

    def __init__(self, batch: AttentionBatch) -> None:
        parts: list[_Part] = list(_decodes(batch))
        start = batch.num_decodes
        for index in range(batch.num_decodes, len(batch.query_lens)):
            parts.append(_Prefill(batch, index, start))
            start += batch.query_lens[index]
        self._parts = parts

    def attend(
        self,
        query: torch.Tensor,
        key_pages: torch.Tensor,
        value_pages: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        """See `AttentionPlan.attend`."""
        if len(self._parts) == 1 and isinstance(self._parts[0].tokens, slice):
            return self._parts[0].attend(query, key_pages, value_pages, params)
        result = query.new_empty((*query.shape[:2], value_pages.shape[-1]))
        for part in self._parts:
            result[part.tokens] = part.attend(query[part.tokens], key_pages, value_pages, params)
        return result


class _Decodes:
    """Sequences with one query token each, padded to the same number of blocks."""

    def __init__(
        self, tokens: torch.Tensor | slice, blocks: torch.Tensor, kv_lens: torch.Tensor
    ) -> None:
        self.tokens = tokens
        self._blocks = blocks  # [G, M]
        self._kv_lens = kv_lens  # [G]
        self._masks: dict[int | None, torch.Tensor] = {}

    def attend(
        self,
        query: torch.Tensor,
        key_pages: torch.Tensor,
        value_pages: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        keys = self._gather(key_pages)
        values = self._gather(value_pages)
        mask = self._mask(params.window, keys.shape[2])
        num_sequences, num_heads, head_dim = query.shape
        num_kv_heads = keys.shape[1]
        grouped = query.view(num_sequences, num_kv_heads, num_heads // num_kv_heads, head_dim)
        if params.softcap is None and params.sinks is None:
            out = scaled_dot_product_attention(
                grouped, keys, values, attn_mask=mask, scale=params.scale
            )
        else:
            sinks = None if params.sinks is None else params.sinks.view(1, num_kv_heads, -1, 1)
            out = _explicit_attention(grouped, keys, values, mask, params, sinks)
        return out.reshape(num_sequences, num_heads, -1)

    def _gather(self, pages: torch.Tensor) -> torch.Tensor:
        """Return [G, num_kv_heads, M * block_tokens, head_dim]."""
        found = pages.index_select(0, self._blocks.view(-1))
        return found.view(self._blocks.shape[0], -1, *pages.shape[2:]).transpose(1, 2)

    def _mask(self, window: int | None, num_keys: int) -> torch.Tensor:
        """Return [G, 1, 1, num_keys], true where a key is seen."""
        if window not in self._masks:
            ends = self._kv_lens.view(-1, 1, 1, 1)
            keys = torch.arange(num_keys, device=ends.device)
            mask = keys < ends
            if window is not None:
                mask &= keys >= ends - window
            self._masks[window] = mask
        return self._masks[window]


class _Prefill:
    """One sequence with several query tokens."""

    def __init__(self, batch: AttentionBatch, index: int, start: int) -> None:
        self._num_queries = batch.query_lens[index]
        self._num_keys = batch.kv_lens[index]
        self._two_way = bool(batch.two_way) and batch.two_way[index]
        self.tokens = slice(start, start + self._num_queries)
        num_blocks = -(-self._num_keys // batch.block_tokens)
        self._blocks = batch.block_tables[index, :num_blocks]
        self._block_tokens = batch.block_tokens
        self._masks: dict[int | None, torch.Tensor | None] = {}

    def attend(
        self,
        query: torch.Tensor,
        key_pages: torch.Tensor,
        value_pages: torch.Tensor,
        params: AttentionParams,
    ) -> torch.Tensor:
        skipped = self._skipped_blocks(params.window)
        keys = self._gather(key_pages, skipped)
        values = self._gather(value_pages, skipped)
        mask = self._mask(params.window, query.device)
        at_once = queries_at_once(query, keys.shape[1])
        if at_once >= self._num_queries:
            return self._attend(query, keys, values, mask, params)
        if mask is None:
            mask = self._seen(None, query.device)
        return torch.cat(
            [
                self._attend(part, keys, values, seen, params)
                for part, seen in zip(query.split(at_once), mask.split(at_once), strict=True)
            ]
        )

    def _attend(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor | None,
        params: AttentionParams,
    ) -> torch.Tensor:
        query = query.transpose(0, 1)  # [num_heads, n, head_dim]
        if params.softcap is None and params.sinks is None:
            out = scaled_dot_product_attention(
                query[None],
                keys[None],
                values[None],
                attn_mask=mask,
                is_causal=mask is None and not self._two_way,
                scale=params.scale,
                enable_gqa=True,
            )[0]
            return out.transpose(0, 1)
        num_kv_heads = keys.shape[0]
        grouped = query.unflatten(0, (num_kv_heads, -1))
        sinks = None if params.sinks is None else params.sinks.view(num_kv_heads, -1, 1, 1)
        if mask is None:
            mask = self._seen(None, query.device)
        out = _explicit_attention(grouped, keys[:, None], values[:, None], mask, params, sinks)
        return out.flatten(0, 1).transpose(0, 1)

    def _skipped_blocks(self, window: int | None) -> int:
        """Return how many leading blocks none of the queries sees anything of."""
        if window is None:
            return 0
        return max(0, self._num_keys - self._num_queries - window + 1) // self._block_tokens

    def _gather(self, pages: torch.Tensor, skipped: int) -> torch.Tensor:
        """Return [num_kv_heads, m, head_dim], without the keys of `skipped` blocks."""
        found = pages.index_select(0, self._blocks[skipped:]).flatten(0, 1)
        return found[: self._num_keys - skipped * self._block_tokens].transpose(0, 1)

    def _mask(self, window: int | None, device: torch.device) -> torch.Tensor | None:
        """Return [n, gathered keys], true where a key is seen; None where torch needs none.

        That is where all are seen, or it is plainly causal with n == m.
        """
        if window is not None and window >= self._num_keys:
            window = None
        if window not in self._masks:
            plain = self._two_way or self._num_queries == self._num_keys
            needs_none = window is None and plain
            self._masks[window] = None if needs_none else self._seen(window, device)
        return self._masks[window]

    def _seen(self, window: int | None, device: torch.device) -> torch.Tensor:
        own = torch.arange(self._num_keys - self._num_queries, self._num_keys, device=device)
        first = self._skipped_blocks(window) * self._block_tokens
        keys = torch.arange(first, self._num_keys, device=device)
        furthest = own.new_full(own.shape, self._num_keys) if self._two_way else own
        mask = keys <= furthest[:, None]
        if window is not None:
            mask &= keys > own[:, None] - window
        return mask


def queries_at_once(query: torch.Tensor, num_keys: int) -> int:
    """Return how many of `query` [n, num_heads, dim] may have their scores written down at once."""
    if query.is_cpu:
        return query.shape[0]
    return max(1, MAX_SCORES // (query.shape[1] * num_keys))


def _decodes(batch: AttentionBatch) -> list[_Decodes]:
    """Group the decodes by length, within a factor of two."""
    if batch.num_decodes == 0:
        return []
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(batch.num_decodes):
        num_blocks = -(-batch.kv_lens[index] // batch.block_tokens)
        members[num_blocks.bit_length()].append(index)
    groups = []
    for bits, indices in members.items():
        at_once = max(1, GATHER_TOKENS // ((1 << bits) * batch.block_tokens))
        parts = range(0, len(indices), at_once)
        groups += [_decode_group(batch, indices[start : start + at_once]) for start in parts]
    return groups


def _decode_group(batch: AttentionBatch, indices: list[int]) -> _Decodes:
    longest = max(batch.kv_lens[index] for index in indices)
    num_blocks = -(-longest // batch.block_tokens)
    if len(indices) == batch.num_decodes:
        everyone = slice(0, batch.num_decodes)
        return _Decodes(
            everyone,
            batch.block_tables[everyone, :num_blocks].contiguous(),
            batch.seq_lens_k[everyone],
        )
    chosen = upload(indices, torch.int32, batch.block_tables.device)
    blocks = batch.block_tables.index_select(0, chosen)[:, :num_blocks].contiguous()
    return _Decodes(chosen, blocks, batch.seq_lens_k.index_select(0, chosen))


def _explicit_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    params: AttentionParams,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention with softcap or sinks, which torch has no fused form of; in float32 throughout."""
    scores = torch.matmul(query.float(), keys.float().transpose(-1, -2)) * params.scale
    if params.softcap is not None:
        scores = torch.tanh(scores / params.softcap) * params.softcap
    scores = scores.masked_fill(mask.logical_not(), -torch.inf)
    if sinks is None:
        weights = scores.softmax(-1)
    else:
        column = sinks.float().expand(*scores.shape[:-1], 1)
        weights = torch.cat((scores, column), dim=-1).softmax(-1)[..., :-1]
    return torch.matmul(weights, values.float()).to(query.dtype)
