"""What holds for a row whichever sampler chooses its token."""

from collections.abc import Collection

from cortex_core.canonical import SamplingParams
from cortex_core.errors import ErrorInfo, InternalError
from neurond.engine.batch import Row

MIN_TEMPERATURE = 1e-5
"""Below it the most likely token is taken: logits divided by less may be infinite in float32."""


def temperature_of(sampling: SamplingParams) -> float:
    """Return the temperature, by default 1; 0 is greedy, and so is what comes close to it."""
    temperature = 1.0 if sampling.temperature is None else sampling.temperature
    return temperature if temperature >= MIN_TEMPERATURE else 0.0


def has_penalties(sampling: SamplingParams) -> bool:
    """Whether what was said before changes logits, so that a row needs `TokenCounts`."""
    return _repeats(sampling) or bool(sampling.presence_penalty or sampling.frequency_penalty)


def repeated_tokens(row: Row) -> Collection[int]:
    """Return the tokens that a repetition penalty is for: those in prompt and output."""
    counts = row.counts
    if counts is None or not _repeats(row.sampling):
        return ()
    return counts.prompt.union(counts.output)


def summands_of(row: Row) -> tuple[list[int], list[float]]:
    """Return tokens, and what is added to the logit of each; a token may be there twice.

    That is logit bias, and for tokens in the output what presence and frequency penalties subtract
    (OpenAI).
    """
    tokens, values = list(row.sampling.logit_bias), list(row.sampling.logit_bias.values())
    presence, frequency = row.sampling.presence_penalty, row.sampling.frequency_penalty
    if row.counts is not None and (presence or frequency):
        tokens += row.counts.output
        values += [-presence - frequency * n for n in row.counts.output.values()]
    return tokens, values


def _repeats(sampling: SamplingParams) -> bool:
    return sampling.repetition_penalty not in (None, 1.0)


def not_finite(row: Row) -> ErrorInfo:
    """Return what a request is told whose logits are NaN or infinite."""
    return InternalError(
        f"cannot choose token {row.num_output_tokens + 1} of the answer: the model's logits are "
        "not finite; its weights may be damaged or overflow in this type"
    ).info()
