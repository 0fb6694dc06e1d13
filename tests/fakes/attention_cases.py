"""Random paged K/V, and attention over it written as it is defined, one query at a time."""

from dataclasses import dataclass

import torch

from neurond.attention.base import AttentionBatch, AttentionParams
from neurond.engine.kv_cache import KvCache
from neurond.engine.kv_shape import LayerShape


@dataclass(frozen=True)
class Case:
    """One step over one layer, its K/V in the pages."""

    batch: AttentionBatch
    query: torch.Tensor
    cache: KvCache
    contexts: list[tuple[torch.Tensor, torch.Tensor]]
    """Keys and values of each sequence in order, [m, num_kv_heads, dim]."""

    @property
    def pages(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cache.pages(0)


def make_case(
    lens: list[tuple[int, int]],
    *,
    num_heads: int = 6,
    shape: LayerShape,
    block_tokens: int = 4,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    num_decodes: int | None = None,
    two_way: tuple[bool, ...] = (),
) -> Case:
    """Make a step of sequences with (query tokens, context tokens) `lens`, decodes first.

    `num_decodes` is less than the sequences of one query where some of those are prompts.
    """
    random = torch.Generator().manual_seed(seed)
    sizes = [-(-kv_len // block_tokens) for _, kv_len in lens]
    num_blocks = sum(sizes) + 3
    cache = KvCache(
        [shape],
        num_blocks=num_blocks,
        block_tokens=block_tokens,
        dtype=dtype,
        device=torch.device("cpu"),
    )
    order = torch.randperm(num_blocks, generator=random).tolist()
    width = max(sizes)
    contexts, tables = [], []
    for (_, kv_len), size in zip(lens, sizes, strict=True):
        table, order = order[:size], order[size:]
        keys = torch.randn(kv_len, shape.num_kv_heads, shape.key_dim, generator=random)
        values = torch.randn(kv_len, shape.num_kv_heads, shape.value_dim, generator=random)
        keys, values = keys.to(dtype), values.to(dtype)
        slots = torch.tensor(
            [table[i // block_tokens] * block_tokens + i % block_tokens for i in range(kv_len)]
        )
        cache.write(0, keys, values, slots)
        contexts.append((keys, values))
        tables.append(table + [cache.blank_block] * (width - size))
    query_lens = [query_len for query_len, _ in lens]
    total = sum(query_lens)
    query = torch.randn(total, num_heads, shape.key_dim, generator=random).to(dtype)
    batch = AttentionBatch(
        cu_seqlens_q=torch.tensor([0, *query_lens], dtype=torch.int32).cumsum(0, dtype=torch.int32),
        seq_lens_k=torch.tensor([kv_len for _, kv_len in lens], dtype=torch.int32),
        block_tables=torch.tensor(tables, dtype=torch.int32),
        query_lens=tuple(query_lens),
        kv_lens=tuple(kv_len for _, kv_len in lens),
        num_decodes=sum(query_len == 1 for query_len in query_lens)
        if num_decodes is None
        else num_decodes,
        max_seqlen_q=max(query_lens),
        max_seqlen_k=max(kv_len for _, kv_len in lens),
        block_tokens=block_tokens,
        two_way=two_way,
    )
    return Case(batch, query, cache, contexts)


def attend_slowly(case: Case, params: AttentionParams) -> torch.Tensor:
    """Return what the contract says, in float64."""
    out, token = [], 0
    two_way = case.batch.two_way or [False] * len(case.contexts)
    for query_len, kv_len, (keys, values), sees_all in zip(
        case.batch.query_lens, case.batch.kv_lens, case.contexts, two_way, strict=True
    ):
        for place in range(kv_len - query_len, kv_len):
            first = 0 if params.window is None else max(0, place + 1 - params.window)
            seen = slice(first, kv_len if sees_all else place + 1)
            out.append(_attend_one(case.query[token], keys[seen], values[seen], params))
            token += 1
    return torch.stack(out)


def _attend_one(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, params: AttentionParams
) -> torch.Tensor:
    shared = query.shape[0] // keys.shape[1]
    heads = []
    for head, one in enumerate(query.double()):
        scores = keys[:, head // shared].double() @ one * params.scale
        if params.softcap is not None:
            scores = params.softcap * torch.tanh(scores / params.softcap)
        weights = scores.exp()
        total = weights.sum()
        if params.sinks is not None:
            total = total + params.sinks[head].double().exp()
        heads.append((weights / total) @ values[:, head // shared].double())
    return torch.stack(heads)
