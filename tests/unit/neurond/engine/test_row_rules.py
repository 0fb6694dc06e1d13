"""Which logits of a row are changed, and by how much."""

import pytest

from cortex_core.canonical import SamplingParams
from neurond.engine.row_rules import has_penalties, repeated_tokens, summands_of
from tests.fakes.sampler_rows import row


@pytest.mark.parametrize(
    ("sampling", "has"),
    [
        (SamplingParams(), False),
        (SamplingParams(repetition_penalty=1.0, logit_bias={3: 1.0}), False),
        (SamplingParams(repetition_penalty=1.1), True),
        (SamplingParams(presence_penalty=-0.5), True),
        (SamplingParams(frequency_penalty=0.5), True),
    ],
)
def test_what_was_said_is_counted_for_penalties_alone(sampling: SamplingParams, has: bool) -> None:
    assert has_penalties(sampling) is has


def test_a_repetition_penalty_is_for_prompt_and_output() -> None:
    penalised = row(SamplingParams(repetition_penalty=1.1), prompt=[1, 2], output=[2, 3, 3])

    assert sorted(repeated_tokens(penalised)) == [1, 2, 3]
    assert summands_of(penalised) == ([], [])


@pytest.mark.parametrize("penalty", [None, 1.0])
def test_without_one_no_token_counts_as_repeated(penalty: float | None) -> None:
    sampling = SamplingParams(repetition_penalty=penalty, presence_penalty=0.5)

    assert not repeated_tokens(row(sampling, prompt=[1, 2], output=[2]))


def test_presence_counts_once_and_frequency_each_time_and_both_for_output_alone() -> None:
    sampling = SamplingParams(
        presence_penalty=0.5, frequency_penalty=0.25, logit_bias={3: 2.0, 9: -1.0}
    )

    tokens, values = summands_of(row(sampling, prompt=[1, 2], output=[2, 3, 3]))

    assert (tokens, values) == ([3, 9, 2, 3], [2.0, -1.0, -0.75, -1.0])


def test_bias_needs_no_counts() -> None:
    assert summands_of(row(SamplingParams(logit_bias={3: 2.0}), output=[3])) == ([3], [2.0])
