"""How prompts give way to those who decode, on a device whose costs are known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurond.engine.pacing import (
    CROWDED_STEP_S,
    LEAST_TOKENS,
    LONGEST_STEP_S,
    QUIET_EVERY,
    SLOWDOWN,
    PrefillPace,
)

MOST = 512
SECONDS = st.floats(1e-4, 1.0)
TOKEN_SECONDS = st.floats(1e-6, 0.05)


def pace_of(quiet_s: float, token_s: float, decode_tokens: int = 4) -> PrefillPace:
    """Return a pace that has seen a prompt alone, and those who decode alone."""
    pace = PrefillPace()
    pace.took(0, MOST, MOST * token_s)
    pace.took(decode_tokens, 0, quiet_s)
    return pace


def test_what_is_not_known_yet_limits_nothing() -> None:
    assert PrefillPace().prefill_tokens(8, MOST) == MOST


@given(SECONDS, TOKEN_SECONDS)
def test_while_nobody_decodes_there_is_no_limit(quiet_s, token_s) -> None:
    assert pace_of(quiet_s, token_s).prefill_tokens(0, MOST) == MOST


@given(SECONDS, TOKEN_SECONDS, st.integers(1, MOST))
def test_a_step_stays_within_its_bound_and_uses_it(quiet_s, token_s, most) -> None:
    tokens = pace_of(quiet_s, token_s).prefill_tokens(4, most)
    bound_s = max(SLOWDOWN * quiet_s, LONGEST_STEP_S)
    if tokens > LEAST_TOKENS:
        assert quiet_s + tokens * token_s <= bound_s * 1.001
    if tokens < most:
        assert tokens >= LEAST_TOKENS
        assert quiet_s + (tokens + 1) * token_s >= bound_s * 0.999


@given(SECONDS, TOKEN_SECONDS, st.integers(0, 4))
def test_no_more_prompts_than_decodes_leave_the_bound_as_it_is(
    quiet_s, token_s, num_prompts
) -> None:
    pace = pace_of(quiet_s, token_s)
    assert pace.prefill_tokens(4, MOST, num_prompts) == pace.prefill_tokens(4, MOST)


@given(SECONDS, TOKEN_SECONDS, st.integers(5, 100))
def test_a_crowd_of_prompts_gets_longer_steps_up_to_a_bound(quiet_s, token_s, num_prompts) -> None:
    pace = pace_of(quiet_s, token_s)
    tokens = pace.prefill_tokens(4, MOST, num_prompts)
    assert tokens >= pace.prefill_tokens(4, MOST, num_prompts - 1)
    if tokens > LEAST_TOKENS:
        bound_s = max(SLOWDOWN * quiet_s, LONGEST_STEP_S, CROWDED_STEP_S)
        assert quiet_s + tokens * token_s <= bound_s * 1.001


@given(SECONDS, TOKEN_SECONDS, st.integers(1, 100))
def test_who_decodes_elsewhere_bounds_a_step_that_decodes_nothing(
    quiet_s, token_s, num_elsewhere
) -> None:
    pace = pace_of(quiet_s, token_s)
    for _ in range(2 * QUIET_EVERY):  # none of these steps is without prompts: it would be empty
        tokens = pace.prefill_tokens(0, MOST, 1, num_elsewhere)
        assert tokens >= LEAST_TOKENS
        if tokens > LEAST_TOKENS:
            assert tokens * token_s <= max(SLOWDOWN * quiet_s, LONGEST_STEP_S) * 1.001
        pace.took(0, tokens, tokens * token_s)


def test_what_is_fixed_in_a_step_counts_for_those_who_decode_elsewhere() -> None:
    pace = PrefillPace()
    for _ in range(50):
        tokens = pace.prefill_tokens(0, MOST, 1, num_elsewhere=1)
        seconds = 0.010 + 0.0003 * tokens
        pace.took(0, tokens, seconds)
    assert seconds == pytest.approx(LONGEST_STEP_S, rel=0.05)


def test_who_decodes_elsewhere_is_none_of_a_crowd() -> None:
    pace = pace_of(0.010, 0.0001, decode_tokens=4)
    tokens = [pace.prefill_tokens(4, 2000, 8, elsewhere) for elsewhere in (0, 2, 4, 100)]
    assert tokens == [pytest.approx(each, abs=1) for each in (400, 233, 150, 150)]


def test_a_crowd_is_told_by_how_many_decode() -> None:
    pace = pace_of(0.010, 0.0001, decode_tokens=4)
    spare_ms = [pace.prefill_tokens(4, 2000, prompts) / 10 for prompts in (4, 8, 12, 100)]
    assert spare_ms == [pytest.approx(ms, abs=0.1) for ms in (15, 40, 65, 90)]


@given(SECONDS, TOKEN_SECONDS, st.floats(0.02, 50.0), st.floats(0.02, 50.0))
def test_wrong_estimates_are_unlearnt(quiet_s, token_s, quiet_error, token_error) -> None:
    pace = pace_of(quiet_s * quiet_error, token_s * token_error)
    for _ in range(60):
        pace.took(4, 0, quiet_s)
        tokens = pace.prefill_tokens(4, MOST)
        pace.took(4, tokens, quiet_s + tokens * token_s)
    right = pace_of(quiet_s, token_s).prefill_tokens(4, MOST)
    assert 0.9 * right - 1 <= pace.prefill_tokens(4, MOST) <= 1.1 * right + 1


@given(SECONDS, TOKEN_SECONDS, st.floats(0.0, 1000.0))
def test_one_step_that_was_held_up_changes_little(quiet_s, token_s, factor) -> None:
    pace = pace_of(quiet_s, token_s)
    before = pace.prefill_tokens(4, MOST)
    pace.took(4, before, factor * (quiet_s + before * token_s))
    assert pace.prefill_tokens(4, MOST) >= min(before, max(LEAST_TOKENS, 0.75 * before))


def test_more_who_decode_leave_less_time() -> None:
    pace = pace_of(0.005, 0.0005, decode_tokens=1)
    pace.took(16, 0, 0.010)
    pace.took(64, 0, 0.100)
    tokens = [pace.prefill_tokens(num_decodes, MOST) for num_decodes in (1, 16, 64)]
    assert tokens == [pytest.approx(40, abs=1), pytest.approx(30, abs=1), pytest.approx(150, abs=1)]


def test_steps_of_other_decodes_do_not_make_prompts_look_free() -> None:
    pace = pace_of(0.5, 0.001, decode_tokens=64)
    for _ in range(1000):  # each with a short prompt: none tells what one decode takes alone
        pace.took(1, 16, 0.020 + 16 * 0.001)
    took_s = []
    for _ in range(30):  # a long one
        tokens = pace.prefill_tokens(1, MOST)
        took_s.append(0.020 + tokens * 0.001)
        pace.took(1, tokens, took_s[-1])
    assert took_s[-1] <= 2 * SLOWDOWN * 0.020
    assert sum(seconds > 4 * SLOWDOWN * 0.020 for seconds in took_s) <= 10


def test_a_token_that_costs_next_to_nothing_limits_nothing() -> None:
    assert pace_of(0.01, 5e-324 * MOST).prefill_tokens(4, MOST) == MOST


def test_prompts_keep_their_share_while_those_who_decode_grow_longer() -> None:
    """Sixteen streams, one prompt after another: no step would be without prompts by itself."""
    token_s = 0.0005
    pace = pace_of(0.005, token_s, decode_tokens=16)
    taken = quiet_steps = 0
    for step in range(400):
        quiet_s = 0.005 + 0.0001 * step
        tokens = pace.prefill_tokens(16, MOST)
        pace.took(16, tokens, quiet_s + tokens * token_s)
        quiet_steps += tokens == 0
        if step >= 200:
            taken += tokens
    fair = sum((SLOWDOWN - 1) * (0.005 + 0.0001 * step) / token_s for step in range(200, 400))
    assert taken >= 0.65 * fair
    assert 400 / QUIET_EVERY - 2 <= quiet_steps <= 400 / QUIET_EVERY
