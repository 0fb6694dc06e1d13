"""Functions of flash-attn 2 and torch: their signatures and refusals, numbers from plain torch.

Signatures and checks are those of flash-attn 2.8.3.post2 (flash_attn/flash_attn_interface.py,
csrc/flash_attn/flash_api.cpp), but for the device: these run anywhere.
"""

import torch

PAGE_MULTIPLE = 256


def flash_attn_varlen_func(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
    block_table=None,
):
    _check_tensors(q, k, v, block_table)
    for lengths in (cu_seqlens_q, cu_seqlens_k):
        assert lengths.dtype == torch.int32, "cu_seqlens must have dtype int32"
        assert lengths.is_contiguous(), "cu_seqlens must be contiguous"
        assert lengths.shape == (block_table.shape[0] + 1,)
    assert isinstance(max_seqlen_q, int)
    assert isinstance(max_seqlen_k, int)
    assert max_seqlen_q > 1, "one query per sequence swaps heads and batch"
    assert q.dim() == 3
    starts, kv_lens = cu_seqlens_q.tolist(), cu_seqlens_k.diff().tolist()
    assert starts[-1] == q.shape[0]
    assert max(kv_lens) <= max_seqlen_k <= block_table.shape[1] * k.shape[1]
    outs, lses = [], []
    for index, kv_len in enumerate(kv_lens):
        query = q[starts[index] : starts[index + 1]]
        assert query.shape[0] <= max_seqlen_q
        out, lse = _attend(
            query, k, v, block_table[index], kv_len, softmax_scale, causal, window_size, softcap
        )
        outs.append(out)
        lses.append(lse)
    out, lse = torch.cat(outs), torch.cat(lses).transpose(0, 1)
    return (out, lse, torch.empty(0)) if return_attn_probs else out


def flash_attn_with_kvcache(
    q,
    k_cache,
    v_cache,
    k=None,
    v=None,
    rotary_cos=None,
    rotary_sin=None,
    cache_seqlens=None,
    cache_batch_idx=None,
    cache_leftpad=None,
    block_table=None,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    rotary_interleaved=True,
    alibi_slopes=None,
    num_splits=0,
    return_softmax_lse=False,
):
    _check_tensors(q, k_cache, v_cache, block_table)
    assert k is None, "K/V are stored before attention"
    assert v is None
    assert cache_batch_idx is None
    assert cache_leftpad is None
    assert 1 <= num_splits <= 128, "left to flash-attn, splits make a token depend on its batch"
    assert cache_seqlens.dtype == torch.int32, "seqlens_k must have dtype int32"
    assert cache_seqlens.is_contiguous()
    assert cache_seqlens.shape == (q.shape[0],)
    assert q.dim() == 4
    outs, lses = [], []
    for index, kv_len in enumerate(cache_seqlens.tolist()):
        assert kv_len <= block_table.shape[1] * k_cache.shape[1]
        out, lse = _attend(
            q[index],
            k_cache,
            v_cache,
            block_table[index],
            kv_len,
            softmax_scale,
            causal,
            window_size,
            softcap,
        )
        outs.append(out)
        lses.append(lse.transpose(0, 1))
    out = torch.stack(outs)
    return (out, torch.stack(lses)) if return_softmax_lse else out


def varlen_attn(
    query,
    key,
    value,
    cu_seq_q,
    cu_seq_k,
    max_q,
    max_k,
    *,
    return_aux=None,
    scale=None,
    window_size=(-1, -1),
    enable_gqa=False,
    seqused_k=None,
    block_table=None,
    num_splits=None,
):
    """Torch's own, `torch.nn.attention.varlen.varlen_attn` of 2.13, as far as it serves."""
    assert block_table is None, "paging is not served by torch's flash-attn 2"
    assert query.dtype in (torch.float16, torch.bfloat16)
    assert query.dtype == key.dtype == value.dtype
    for tensor in (query, key, value):
        assert tensor.dim() == 3
        assert tensor.stride(-1) == 1
    for lengths in (cu_seq_q, cu_seq_k, seqused_k):
        assert lengths.dtype == torch.int32
        assert lengths.is_contiguous()
    assert enable_gqa or query.shape[1] == key.shape[1]
    assert num_splits == 1, "left to torch, splits make a token depend on its batch"
    assert isinstance(window_size, tuple), "a list is not taken for causal"
    starts, key_starts = cu_seq_q.tolist(), cu_seq_k.tolist()
    assert (starts[-1], key_starts[-1]) == (query.shape[0], key.shape[0])
    assert max(seqused_k.tolist()) == max_k
    assert int(cu_seq_q.diff().max()) == max_q
    outs, lses = [], []
    for index, kv_len in enumerate(seqused_k.tolist()):
        first, last = key_starts[index], key_starts[index + 1]
        assert kv_len <= last - first
        out, lse = _attend(
            query[starts[index] : starts[index + 1]],
            key[None, first:last],
            value[None, first:last],
            torch.zeros(1, dtype=torch.int32),
            kv_len,
            scale,
            window_size == (-1, 0),
            window_size,
            0.0,
        )
        outs.append(out)
        lses.append(lse)
    out, lse = torch.cat(outs), torch.cat(lses).transpose(0, 1)
    return (out, lse) if return_aux is not None and return_aux.lse else out


def _check_tensors(q, k, v, block_table):
    assert q.dtype in (torch.float16, torch.bfloat16), "only fp16 and bf16 are supported"
    assert k.dtype == q.dtype == v.dtype, "query, key and value must have the same dtype"
    for tensor in (q, k, v, block_table):
        assert tensor.stride(-1) == 1, "the last dimension must be contiguous"
    assert block_table.dtype == torch.int32, "block_table must have dtype torch.int32"
    assert k.shape == v.shape
    assert k.dim() == 4
    assert k.shape[1] % PAGE_MULTIPLE == 0, "page size must be divisible by 256"
    assert int(block_table.min()) >= 0
    assert int(block_table.max()) < k.shape[0], "a page number is out of range"
    head_dim = q.shape[-1]
    assert k.shape[-1] == head_dim <= 256
    assert head_dim % 8 == 0
    assert q.shape[-2] % k.shape[2] == 0, "query heads must be a multiple of key heads"


def _attend(query, k_pages, v_pages, table, kv_len, scale, causal, window, softcap):
    """Return out [n, num_heads, dim] and lse [n, num_heads], float32 inside."""
    num_queries, num_heads, head_dim = query.shape
    keys = k_pages[table.long()].flatten(0, 1)[:kv_len].float()
    values = v_pages[table.long()].flatten(0, 1)[:kv_len].float()
    shared = num_heads // keys.shape[1]
    keys, values = keys.repeat_interleave(shared, 1), values.repeat_interleave(shared, 1)
    scores = torch.einsum("qhd,khd->hqk", query.float(), keys)
    scores = scores * (head_dim**-0.5 if scale is None else scale)
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    own = torch.arange(kv_len - num_queries, kv_len)[:, None]
    places = torch.arange(kv_len)
    left, right = window
    if causal:
        right = 0
    seen = torch.ones(num_queries, kv_len, dtype=torch.bool)
    if left >= 0:
        seen &= places >= own - left
    if right >= 0:
        seen &= places <= own + right
    scores = scores.masked_fill(~seen, -torch.inf)
    lse = scores.logsumexp(-1)
    out = torch.einsum("hqk,khd->qhd", (scores - lse[..., None]).exp(), values)
    return out.to(query.dtype), lse.transpose(0, 1)
