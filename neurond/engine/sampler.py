"""From logits to tokens, for rows that each have parameters of their own.

Order: what a grammar forbids, logit bias and penalties on the logits, temperature, then top-k,
top-p and min-p, each on what the former left, then one draw. Log probabilities are the model's own,
from the logits as they came. Everything up to `Choices.fetch` only submits work to the device.

Filters are thresholds: top-k keeps what is at least the k-th largest logit, top-p what is at least
the smallest logit of the smallest set of tokens with that much probability, min-p what is at least
that fraction of the most likely token. Tokens that tie with a threshold are kept, so what is kept
does not depend on an order among equals.

A threshold needs the largest logits in order, but not the whole vocabulary sorted. On the host,
only candidates are sorted (`_candidates`):
- with top-k, the k largest hold every threshold, as top-p and min-p only look within them;
- with top-p, tokens of probability below (1 - top_p) / V hold less than 1 - top_p together, so all
  others hold more than top_p: the set that top-p looks for is among them;
- min-p alone needs no order.
On other devices, waiting for the number of candidates costs more than a full sort, which is spared
where top-k bounds that number for every row that needs order.

The draw inverts the cumulative distribution in order of token ids, in float64. A rounding
difference in a logit, as between batches of different size, then moves the outcome by no more than
itself; in order of probability it could swap neighbours.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from cortex_core.canonical import SamplingParams
from cortex_core.errors import ErrorInfo
from neurond.engine.batch import Row, SampledToken
from neurond.engine.masks import NO_MASKS, Masks
from neurond.engine.penalties import adjust
from neurond.engine.randomness import uniform
from neurond.engine.row_rules import not_finite, temperature_of
from neurond.engine.upload import upload

HOST_ROWS = 16
"""Rows drawn for at once on the host: what they take then stays in its caches."""
DEVICE_LOGITS = 1 << 22
"""Logits drawn from at once on other devices: with what sorting takes, 60 bytes for each."""


@dataclass(frozen=True, slots=True)
class Choices:
    """Tokens chosen for S rows, still on the device."""

    tokens: torch.Tensor  # int64 [S]
    highest: torch.Tensor  # float32 [S] the largest logit as chosen from; not finite: no choice
    logprobs: torch.Tensor | None  # float32 [S] of the tokens
    top_tokens: torch.Tensor | None  # int64 [S, K]
    top_logprobs: torch.Tensor | None  # float32 [S, K]
    masks: Masks

    def fetch(self, rows: Sequence[Row]) -> list[SampledToken | ErrorInfo]:
        """Wait for the device and return one entry for each row."""
        tokens, finite = self.tokens.tolist(), self.highest.isfinite().tolist()
        logprobs = None if self.logprobs is None else self.logprobs.tolist()
        tops = self._tops()
        results: list[SampledToken | ErrorInfo] = []
        for index, row in enumerate(rows):
            wanted = row.sampling.logprobs
            if not finite[index]:
                results.append(not_finite(row))
            elif wanted is None or logprobs is None:
                results.append(SampledToken(tokens[index]))
            else:
                top = tuple(tops[index][:wanted]) if tops else ()
                results.append(SampledToken(tokens[index], logprobs[index], top))
        return self.masks.settle(results)

    def _tops(self) -> list[list[tuple[int, float]]]:
        if self.top_tokens is None or self.top_logprobs is None:
            return []
        pairs = zip(self.top_tokens.tolist(), self.top_logprobs.tolist(), strict=True)
        return [list(zip(tokens, logprobs, strict=True)) for tokens, logprobs in pairs]


def sample(logits: torch.Tensor, rows: Sequence[Row], masks: Masks = NO_MASKS) -> Choices:
    """Choose a token for each of `rows` from `logits` [S, V], which may be overwritten."""
    logits = logits.float()
    wanted = max(
        (row.sampling.logprobs for row in rows if row.sampling.logprobs is not None), default=None
    )
    normaliser = None if wanted is None else logits.logsumexp(-1, keepdim=True)
    top = logits.topk(min(wanted, logits.shape[-1])) if wanted else None
    raw = logits
    keep = normaliser is not None
    logits = forbid(logits, masks.allowed, keep=keep)
    logits = adjust(logits, rows, keep=keep and logits is raw)
    highest, tokens = logits.max(-1)
    drawn = [index for index, row in enumerate(rows) if temperature_of(row.sampling) > 0]
    if drawn:
        tokens = _draw_rows(logits, rows, drawn, tokens)
    if normaliser is None:
        return Choices(tokens, highest, None, None, None, masks)
    logprobs = (raw.gather(-1, tokens[:, None]) - normaliser).squeeze(-1)
    if top is None:
        return Choices(tokens, highest, logprobs, None, None, masks)
    return Choices(tokens, highest, logprobs, top.indices, top.values - normaliser, masks)


def forbid(
    logits: torch.Tensor, allowed: Sequence[array[int] | None], *, keep: bool
) -> torch.Tensor:
    """Return `logits` [S, V] with -inf for what `Masks.allowed` leaves out; in place unless `keep`.

    Does not wait for the device.
    """
    found = [(row, mask) for row, mask in enumerate(allowed) if mask is not None]
    if not found:
        return logits
    if keep:
        logits = logits.clone()
    words = array("i")
    for _, mask in found:
        words.frombytes(mask.tobytes())
    bits = torch.arange(32, dtype=torch.int32, device=logits.device)
    packed = upload(words, torch.int32, logits.device).view(len(found), -1, 1)
    forbidden = ((packed >> bits) & 1).view(len(found), -1)[:, : logits.shape[-1]] == 0
    rows = upload([row for row, _ in found], torch.int64, logits.device)
    return logits.index_copy_(0, rows, logits[rows].masked_fill_(forbidden, -torch.inf))


def _draw_rows(
    logits: torch.Tensor, rows: Sequence[Row], drawn: list[int], greedy: torch.Tensor
) -> torch.Tensor:
    """Return `greedy` with the rows `drawn` replaced by draws."""
    count = HOST_ROWS if logits.is_cpu else max(1, DEVICE_LOGITS // logits.shape[-1])
    tokens = greedy.clone()
    for start in range(0, len(drawn), count):
        part = drawn[start : start + count]
        indices = upload(part, torch.int64, greedy.device)
        found = _draw(logits.index_select(0, indices), [rows[index] for index in part])
        tokens.index_copy_(0, indices, found)
    return tokens


def _draw(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """Draw a token for each row from `logits` [S, V], which are overwritten."""
    temperatures = [temperature_of(row.sampling) for row in rows]
    logits /= upload(temperatures, torch.float32, logits.device)[:, None]
    weights = (logits - logits.amax(-1, keepdim=True)).exp_()
    if any(_is_filtered(row.sampling) for row in rows):
        threshold = _thresholds(logits, weights.sum(-1), rows)
        weights.masked_fill_(logits < threshold[:, None], 0.0)
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    draws = [uniform(row.seed, row.choice, row.num_output_tokens) for row in rows]
    target = cumulative[:, -1:] * upload(draws, torch.float64, cumulative.device)[:, None]
    found = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    return found.clamp(max=logits.shape[-1] - 1)


def _is_filtered(sampling: SamplingParams) -> bool:
    return bool(sampling.top_k or (sampling.top_p or 1.0) < 1.0 or sampling.min_p)


def _thresholds(logits: torch.Tensor, totals: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """Return for each row [S] the smallest logit that its filters keep.

    `totals` [S] are the sums of exp(logit - highest).
    """
    vocab_size = logits.shape[-1]
    params = [row.sampling for row in rows]
    ordered = _candidates(logits, totals, params) if logits.is_cpu else _largest(logits, params)
    highest = ordered[:, :1]
    weights = (ordered - highest).exp()

    top_k = upload([p.top_k or vocab_size for p in params], torch.int64, logits.device)[:, None]
    places = torch.arange(ordered.shape[-1], device=logits.device)
    weights = weights.masked_fill(places >= top_k, 0.0)
    limited = upload([p.top_k is not None for p in params], torch.bool, logits.device)
    totals = torch.where(limited, weights.sum(-1), totals)[:, None]

    top_p = upload(
        [1.0 if p.top_p is None else p.top_p for p in params], torch.float32, logits.device
    )
    cumulative = weights.cumsum(-1)
    # A token is kept while those before it have less than top_p: so the one that reaches it is.
    before = cumulative - weights
    kept = (before < top_p[:, None] * totals) & (weights > 0)
    last = kept.sum(-1, keepdim=True).clamp(min=1) - 1
    by_order = ordered.gather(-1, last).squeeze(-1)
    unordered = [p.top_k is None and (p.top_p is None or p.top_p >= 1) for p in params]
    by_order = by_order.masked_fill(upload(unordered, torch.bool, logits.device), -torch.inf)

    min_p = upload([p.min_p or 0.0 for p in params], torch.float32, logits.device)
    by_ratio = highest.squeeze(-1) + min_p.log()
    return torch.maximum(by_order, by_ratio)


def _largest(logits: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Return [S, K], descending: all logits that a threshold may be; K follows from `params`."""
    if any(p.top_k is None and (p.top_p or 1.0) < 1.0 for p in params):
        return logits.sort(-1, descending=True).values
    count = max((p.top_k for p in params if p.top_k is not None), default=1)
    return logits.topk(min(count, logits.shape[-1])).values


def _candidates(
    logits: torch.Tensor, totals: torch.Tensor, params: Sequence[SamplingParams]
) -> torch.Tensor:
    """Return [S, K], descending and padded with -inf: all logits that a threshold may be.

    Only for the host's tensors: their number depends on the data.
    """
    highest = logits.amax(-1)
    found = []
    for row, best, total, sampling in zip(logits, highest, totals, params, strict=True):
        if sampling.top_k is not None:
            found.append(row.topk(min(sampling.top_k, len(row))).values)
        elif sampling.top_p is not None and sampling.top_p < 1.0:
            bound = best + (total * (1.0 - sampling.top_p) / len(row)).log()
            found.append(row[row >= bound].sort(descending=True).values)
        else:
            found.append(best[None])
    if not all(len(values) for values in found):  # a row of NaN, which is refused later
        found = [values if len(values) else highest[:1] for values in found]
    return pad_sequence(found, batch_first=True, padding_value=-torch.inf)
