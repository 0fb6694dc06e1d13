"""Attention of one query a sequence over pages, in Triton: it comes with every torch for CUDA.

Two kernels. The first gives each K/V head of each sequence `SPLITS` programs, and each of those an
equal share of the keys, in whole blocks; it takes all heads of a group at once, so that K/V are
read once. The second puts the shares together, with the sink where there is one.
"""

import triton
import triton.language as tl

MIN_DOT = 16
"""Rows and columns that the product of two tiles has at least."""


@triton.jit
def share_of(
    length, window, split, block: tl.constexpr, splits: tl.constexpr, has_window: tl.constexpr
):
    """Return the first key that is seen, and from where to where share `split` goes."""
    first = 0
    if has_window:
        first = tl.maximum(length - window, 0)
    first_block = first // block
    blocks = tl.cdiv(length, block) - first_block
    share = tl.cdiv(blocks, splits)
    start = (first_block + split * share) * block
    return first, start, tl.minimum(start + share * block, length)


@triton.jit
def capped(scores, softcap):
    """Return softcap * tanh(scores / softcap), without the overflow of exp(2 x)."""
    halves = tl.exp(-2.0 * tl.abs(scores / softcap))
    sizes = softcap * (1.0 - halves) / (1.0 + halves)
    return tl.where(scores < 0, -sizes, sizes)


@triton.jit
def weighed(scores, highest):
    """Return the weights of a block's keys, the highest score by now and what it does to sums.

    Each block of a share has a key that is seen, so the highest score is finite.
    """
    higher = tl.maximum(highest, tl.max(scores, 1))
    return tl.exp(scores - higher[:, None]), higher, tl.exp(highest - higher)


@triton.jit(do_not_specialize=["table_stride", "window"])
def split_decode(
    query,
    keys,
    values,
    table,
    lengths,
    out,
    out_lse,
    scale,
    softcap,
    window,
    query_seq_stride,
    query_head_stride,
    page_stride,
    token_stride,
    head_stride,
    table_stride,
    group: tl.constexpr,
    padded_group: tl.constexpr,
    dim: tl.constexpr,
    padded_dim: tl.constexpr,
    page_tokens: tl.constexpr,
    block: tl.constexpr,
    splits: tl.constexpr,
    has_window: tl.constexpr,
    has_softcap: tl.constexpr,
):
    """Attend from one group of heads of a sequence over one share of its keys.

    Writes out [B, num_heads, splits, dim] and out_lse [B, num_heads, splits], float32; -inf where
    the share is empty. Keys and values have the same strides.
    """
    seq, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    num_heads = tl.num_programs(1) * group
    length = tl.load(lengths + seq)
    first, start, stop = share_of(length, window, split, block, splits, has_window)

    rows = tl.arange(0, padded_group)
    dims = tl.arange(0, padded_dim)
    of_group, of_dim = rows < group, dims < dim
    heads = head * group + rows
    queries = tl.load(
        query + seq * query_seq_stride + heads[:, None] * query_head_stride + dims[None, :],
        mask=of_group[:, None] & of_dim[None, :],
        other=0.0,
    )
    highest = tl.full([padded_group], float("-inf"), tl.float32)
    total = tl.zeros([padded_group], tl.float32)
    sums = tl.zeros([padded_group, padded_dim], tl.float32)
    for at in range(start, stop, block):
        places = at + tl.arange(0, block)
        seen = (places < stop) & (places >= first)
        page = tl.load(table + seq * table_stride + at // page_tokens).to(tl.int64)
        base = page * page_stride + head * head_stride
        tokens = (places % page_tokens) * token_stride
        key_tile = tl.load(
            keys + base + tokens[None, :] + dims[:, None],
            mask=seen[None, :] & of_dim[:, None],
            other=0.0,
        )
        scores = tl.dot(queries, key_tile, input_precision="ieee") * scale
        if has_softcap:
            scores = capped(scores, softcap)
        scores = tl.where(seen[None, :], scores, float("-inf"))
        weights, highest, former = weighed(scores, highest)
        value_tile = tl.load(
            values + base + tokens[:, None] + dims[None, :],
            mask=seen[:, None] & of_dim[None, :],
            other=0.0,
        )
        total = total * former + tl.sum(weights, 1)
        sums = sums * former[:, None] + tl.dot(
            weights.to(value_tile.dtype), value_tile, input_precision="ieee"
        )

    is_empty = start >= stop
    place = (seq * num_heads + heads) * splits + split
    divisor = tl.where(is_empty, 1.0, total)
    tl.store(
        out + place[:, None] * dim + dims[None, :],
        sums / divisor[:, None],
        mask=of_group[:, None] & of_dim[None, :],
    )
    tl.store(out_lse + place, highest + tl.log(divisor), mask=of_group)


@triton.jit
def join_splits(
    parts,
    lses,
    sinks,
    out,
    num_heads,
    dim: tl.constexpr,
    padded_dim: tl.constexpr,
    splits: tl.constexpr,
    has_sinks: tl.constexpr,
):
    """Weigh the shares of one head of a sequence by what `split_decode` wrote; out [B, H, dim]."""
    row = tl.program_id(0)
    dims = tl.arange(0, padded_dim)
    shares = tl.arange(0, splits)
    lse = tl.load(lses + row * splits + shares)
    highest = tl.max(lse, 0)
    if has_sinks:
        sink = tl.load(sinks + row % num_heads).to(tl.float32)
        highest = tl.maximum(highest, sink)
    weights = tl.exp(lse - highest)
    total = tl.sum(weights, 0)
    if has_sinks:
        total += tl.exp(sink - highest)
    part = tl.load(
        parts + (row * splits + shares[:, None]) * dim + dims[None, :],
        mask=(dims < dim)[None, :],
        other=0.0,
    )
    joined = tl.sum(part * weights[:, None], 0) / total
    tl.store(out + row * dim + dims, joined.to(out.dtype.element_ty), mask=dims < dim)
