"""How a sequence counts its tokens and when it ends."""

from array import array

import pytest

from cortex_core.canonical import FinishReason, SamplingParams
from cortex_core.ids import RequestId
from neurond.engine.batch import Row, TokenCounts
from neurond.engine.blocks import BlockTable
from neurond.engine.sequence import Sequence, count_tokens


def new_sequence(sampling: SamplingParams, *, max_length: int = 100) -> Sequence:
    """Return a sequence of the prompt 7, 8, 7 with the replayed output 9, 9."""
    token_ids = array("i", [7, 8, 7, 9, 9])
    return Sequence(
        request_id=RequestId("r"),
        row=Row(1, 0, 0, sampling, token_ids, 3, count_tokens(sampling, token_ids, 3)),
        table=BlockTable(16),
        stop_token_ids=frozenset({50}),
        max_length=max_length,
        arrival=1,
    )


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(repetition_penalty=1.1),
        SamplingParams(presence_penalty=-0.5),
        SamplingParams(frequency_penalty=0.5),
    ],
)
def test_penalties_count_prompt_and_output_apart(sampling: SamplingParams) -> None:
    seq = new_sequence(sampling)
    seq.append(8)
    seq.append(9)
    assert seq.row.counts == TokenCounts(frozenset({7, 8}), {9: 3, 8: 1})
    assert seq.row.num_output_tokens == 4


@pytest.mark.parametrize("sampling", [SamplingParams(), SamplingParams(repetition_penalty=1.0)])
def test_without_penalties_nothing_is_counted(sampling: SamplingParams) -> None:
    assert new_sequence(sampling).row.counts is None


@pytest.mark.parametrize(
    ("token_id", "max_length", "reason"),
    [(1, 7, None), (1, 6, "length"), (50, 7, "stop"), (50, 6, "stop")],
)
def test_a_stop_token_ends_before_the_length_does(
    token_id: int, max_length: int, reason: FinishReason | None
) -> None:
    assert new_sequence(SamplingParams(), max_length=max_length).append(token_id) == reason
