"""A draw is a function of its key alone, and evenly spread."""

from statistics import mean

from hypothesis import given
from hypothesis import strategies as st

from neurond.engine.randomness import uniform

KNOWN = (0.13870941014555171, 0.5211329322530496, 0.3452631380297433)
SEEDS = st.integers(0, 2**64 - 1)


@given(SEEDS, st.integers(0, 15), st.integers(0, 10**6))
def test_a_draw_is_a_function_of_its_key(seed, choice, step):
    draw = uniform(seed, choice, step)
    assert 0.0 <= draw < 1.0
    assert uniform(seed, choice, step) == draw


@given(SEEDS)
def test_draws_of_one_request_differ(seed):
    draws = {uniform(seed, choice, step) for choice in range(4) for step in range(64)}
    assert len(draws) == 4 * 64


def test_known_draws_stay_as_they_are():
    # A stream that moves to another version of the program continues with the same numbers.
    assert uniform(0, 0, 0) == KNOWN[0]
    assert uniform(1, 2, 3) == KNOWN[1]
    assert uniform(2**64 - 1, 15, 4095) == KNOWN[2]


def test_draws_are_spread_evenly():
    for draws in (
        [uniform(7, 0, step) for step in range(4000)],
        [uniform(seed, 0, 0) for seed in range(4000)],
        [uniform(7, choice, 5) for choice in range(4000)],
    ):
        assert abs(mean(draws) - 0.5) < 0.02
        tenths = [sum(low / 10 <= draw < (low + 1) / 10 for draw in draws) for low in range(10)]
        assert all(300 < count < 500 for count in tenths)
