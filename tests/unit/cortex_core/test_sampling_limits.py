"""The ranges of sampling parameters."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.canonical import SamplingParams
from cortex_core.errors import InvalidRequest
from cortex_core.sampling_limits import (
    MAX_LOGIT_BIASES,
    MAX_STOP_CHARS,
    MAX_STOP_TEXTS,
    check_choices,
    check_sampling,
    check_token_ids,
)

IN_RANGE = {
    "temperature": st.floats(0, 1e6),
    "top_p": st.floats(0, 1, exclude_min=True),
    "top_k": st.integers(1, 2**31 - 1),
    "min_p": st.floats(0, 1),
    "repetition_penalty": st.floats(0, 10, exclude_min=True),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "logit_bias": st.dictionaries(st.integers(0, 2**31 - 1), st.floats(-100, 100), max_size=3),
    "seed": st.integers(0, 2**64 - 1),
    "stop": st.lists(st.text(min_size=1, max_size=9), max_size=3).map(tuple),
    "stop_token_ids": st.lists(st.integers(0, 2**31 - 1), max_size=3).map(tuple),
    "max_tokens": st.integers(1, 2**31 - 1),
    "logprobs": st.integers(0, 20),
}


@given(sampling=st.builds(SamplingParams, **IN_RANGE))
def test_everything_in_range_is_accepted(sampling: SamplingParams) -> None:
    assert check_sampling(sampling) is None


def test_the_defaults_are_accepted() -> None:
    assert check_sampling(SamplingParams()) is None


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("temperature", -1e-9, "temperature"),
        ("temperature", float("inf"), "temperature"),
        ("temperature", float("nan"), "temperature"),
        ("top_p", 0.0, "top_p"),
        ("top_p", float("nan"), "top_p"),
        ("top_k", 0, "top_k"),
        ("min_p", -0.1, "min_p"),
        ("repetition_penalty", 0.0, "repetition_penalty"),
        ("repetition_penalty", float("inf"), "repetition_penalty"),
        ("presence_penalty", 2.1, "presence_penalty"),
        ("frequency_penalty", float("nan"), "frequency_penalty"),
        ("seed", -1, "seed"),
        ("seed", 2**64, "seed"),
        ("max_tokens", -1, "max_tokens"),
        ("max_tokens", 10**4000, "max_tokens"),
        ("logprobs", 21, "logprobs"),
        ("stop", ("a", ""), "stop[1]"),
        ("stop", ("a" * (MAX_STOP_CHARS + 1),), "stop[0]"),
        ("stop", ("a",) * (MAX_STOP_TEXTS + 1), "stop"),
        ("stop_token_ids", (1, -1), "stop_token_ids[1]"),
        ("logit_bias", {-1: 0.0}, "logit_bias"),
        ("logit_bias", {7: float("nan")}, "logit_bias[7]"),
        ("logit_bias", dict.fromkeys(range(MAX_LOGIT_BIASES + 1), 0.0), "logit_bias"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(field: str, value: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_sampling(SamplingParams(**{field: value}))
    assert caught.value.param == param
    assert len(caught.value.message) < 200


def test_errors_use_the_client_s_word_for_a_field() -> None:
    with pytest.raises(InvalidRequest, match="max_completion_tokens: expected 1 or more") as caught:
        check_sampling(
            SamplingParams(max_tokens=0),
            names={"max_tokens": "max_completion_tokens"},
            generates=True,
        )
    assert caught.value.param == "max_completion_tokens"
    with pytest.raises(InvalidRequest) as caught:
        check_sampling(SamplingParams(stop=("",)), names={"stop": "stop_sequences"})
    assert caught.value.param == "stop_sequences[0]"


@pytest.mark.parametrize("n", [0, -1, 17])
def test_choices_have_a_range(n: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_choices(n)
    assert caught.value.param == "n"


@pytest.mark.parametrize("token_id", [-1, 2**31])
def test_token_ids_have_a_range(token_id: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_token_ids([0, 2**31 - 1, 5, token_id], param="prompt")
    assert caught.value.param == "prompt[3]"
