"""The sampler of the CPU engine: what `sampler` defines, in one call of a kernel.

It gives the same tokens but for rounding, and other bits of a log probability. The kernel neither
waits nor allocates, and spreads the rows over the threads that computed their logits.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from cortex_core.errors import ErrorInfo
from neurond.engine.batch import Row, SampledToken
from neurond.engine.row_rules import not_finite, repeated_tokens, summands_of, temperature_of
from neurond.kernels.sample_abi import SAMPLE_ROW, Sampled
from neurond.kernels.sampling import SampleKernel, SampleRows

LARGEST_FACTOR = 1e30
"""A larger temperature or penalty would do nothing more, and the kernel's float32 ends at 3e38."""


def sample_on_host(
    kernel: SampleKernel,
    logits: int,
    rows: Sequence[Row],
    allowed: Sequence[array[int] | None] = (),
) -> list[SampledToken | ErrorInfo]:
    """Choose a token for each of `rows`.

    Args:
        logits: address of float32 [S, V], which are overwritten.
        allowed: `Masks.allowed`; empty where every row may take all tokens.
    """
    told = SampleRows()
    masks = allowed or [None] * len(rows)
    for row, mask in zip(rows, masks, strict=True):
        _add(told, row, mask)
    sampled = kernel(logits, told)
    return [_result(row, found) for row, found in zip(rows, sampled, strict=True)]


def _add(told: SampleRows, row: Row, mask: array[int] | None) -> None:
    sampling = row.sampling
    first_repeated, first_added = len(told.repeated), len(told.added_tokens)
    if sampling.logit_bias or row.counts is not None:
        _list_tokens(told, row)
    top_p, wanted = sampling.top_p, sampling.logprobs
    packed = SAMPLE_ROW.pack(
        row.seed,
        row.choice,
        row.num_output_tokens,
        0 if mask is None else mask.buffer_info()[0],
        first_repeated,
        len(told.repeated) - first_repeated,
        first_added,
        len(told.added_tokens) - first_added,
        min(sampling.repetition_penalty or 1.0, LARGEST_FACTOR),
        min(temperature_of(sampling), LARGEST_FACTOR),
        sampling.top_k or 0,
        1.0 if top_p is None else top_p,
        sampling.min_p or 0.0,
        wanted is not None,
        wanted or 0,
        0,
    )
    told.packed.append(packed)


def _list_tokens(told: SampleRows, row: Row) -> None:
    """Append the row's tokens whose logits change; the kernel passes over what is no token."""
    told.repeated.extend(repeated_tokens(row))
    tokens, values = summands_of(row)
    told.added_tokens.extend(tokens)
    told.added_values.extend(values)


def _result(row: Row, found: Sampled) -> SampledToken | ErrorInfo:
    if not found.finite:
        return not_finite(row)
    if row.sampling.logprobs is None:
        return SampledToken(found.token)
    count = found.num_top
    pairs = zip(found.top_tokens[:count], found.top_logprobs[:count], strict=True)
    return SampledToken(found.token, found.logprob, tuple(pairs))
