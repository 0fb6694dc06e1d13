"""Rows as a sampler is given them."""

from array import array
from collections import Counter

from cortex_core.canonical import SamplingParams
from neurond.engine.batch import Row, TokenCounts


def row(sampling: SamplingParams, *, prompt=(1, 2), output=(), seed=0, choice=0) -> Row:
    counted = sampling.repetition_penalty or sampling.presence_penalty
    counted = counted or sampling.frequency_penalty
    return Row(
        stream=0,
        choice=choice,
        seed=seed,
        sampling=sampling,
        token_ids=array("i", [*prompt, *output]),
        num_prompt_tokens=len(prompt),
        counts=TokenCounts(frozenset(prompt), dict(Counter(output))) if counted else None,
    )


def mask_of(vocab: int, tokens: set[int]) -> array:
    """Return the bits of the tokens that a row may take."""
    words = [0] * -(-vocab // 32)
    for token in tokens:
        words[token // 32] |= 1 << token % 32
    return array("I", words)
