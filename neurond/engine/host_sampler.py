"""The sampler of the CPU engine: what `sampler` defines, in one call of a kernel.

It gives the same tokens but for rounding, and other bits of a log probability. The kernel neither
waits nor allocates, and spreads the rows over the threads that computed their logits.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from cortex_core.errors import ErrorInfo
from neurond.engine.batch import Row, SampledToken
from neurond.engine.sampler import _not_finite, temperature_of
from neurond.kernels.sample_abi import Sampled
from neurond.kernels.sampling import Lists, RowParams, SampleKernel


def sample_on_host(
    kernel: SampleKernel,
    logits: int,
    rows: Sequence[Row],
    allowed: Sequence[array[int] | None] | None = None,
) -> list[SampledToken | ErrorInfo]:
    """Choose a token for each of `rows`.

    Args:
        logits: address of float32 [S, V], which are overwritten.
        allowed: for each row the tokens it may take, one bit each in 32-bit words, or None for all.
    """
    lists = Lists()
    masks = [None] * len(rows) if allowed is None else allowed
    params = [_params(row, mask, lists) for row, mask in zip(rows, masks, strict=True)]
    sampled = kernel(logits, params, lists)
    return [_result(row, found) for row, found in zip(rows, sampled, strict=True)]


def _params(row: Row, mask: array[int] | None, lists: Lists) -> RowParams:
    sampling = row.sampling
    first_repeated, first_added = len(lists.repeated), len(lists.added_tokens)
    _list_tokens(row, lists)
    return RowParams(
        seed=row.seed,
        choice=row.choice,
        step=row.num_output_tokens,
        allowed=None if mask is None else mask.buffer_info()[0],
        first_repeated=first_repeated,
        num_repeated=len(lists.repeated) - first_repeated,
        first_added=first_added,
        num_added=len(lists.added_tokens) - first_added,
        repetition_penalty=sampling.repetition_penalty or 1.0,
        temperature=temperature_of(sampling),
        top_k=sampling.top_k or 0,
        top_p=1.0 if sampling.top_p is None else sampling.top_p,
        min_p=sampling.min_p or 0.0,
        wants_logprobs=sampling.logprobs is not None,
        num_top=sampling.logprobs or 0,
    )


def _list_tokens(row: Row, lists: Lists) -> None:
    """Append the row's tokens whose logits change; the kernel passes over what is no token."""
    sampling, counts = row.sampling, row.counts
    if sampling.logit_bias:
        lists.added_tokens.extend(sampling.logit_bias.keys())
        lists.added_values.extend(sampling.logit_bias.values())
    if counts is None:
        return
    if sampling.repetition_penalty is not None and sampling.repetition_penalty != 1.0:
        lists.repeated.extend(counts.prompt.union(counts.output))
    presence, frequency = sampling.presence_penalty, sampling.frequency_penalty
    if presence or frequency:
        lists.added_tokens.extend(counts.output.keys())
        lists.added_values.extend(-presence - frequency * n for n in counts.output.values())


def _result(row: Row, found: Sampled) -> SampledToken | ErrorInfo:
    if not found.finite:
        return _not_finite(row)
    if row.sampling.logprobs is None:
        return SampledToken(found.token)
    count = found.num_top
    pairs = zip(found.top_tokens[:count], found.top_logprobs[:count], strict=True)
    return SampledToken(found.token, found.logprob, tuple(pairs))
