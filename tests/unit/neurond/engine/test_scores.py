"""Scores of prompts: each token's once, whatever is cached, shared, cut into steps or put out."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_core.canonical import SamplingParams
from neurond.engine.engine import Engine
from tests.fakes.fake_runner import FakeRunner, expected_scores
from tests.unit.neurond.engine.engines import alone, new_engine, request

SCORED = SamplingParams(logprobs=0, scores_prompt=True)
PROMPT = list(range(3, 40))


def told(engine: Engine) -> tuple[dict[int, list[float]], dict[int, list[int]]]:
    """Run an engine to its end; return the scores and the tokens of each stream."""
    scores: dict[int, list[float]] = {}
    tokens: dict[int, list[int]] = {}
    for _ in range(500):
        if not engine.has_work():
            return scores, tokens
        output = engine.step()
        assert not output.failed
        for stream, token in output.scores:
            assert stream not in tokens, "scores come before tokens"
            assert token.logprob is not None
            scores.setdefault(stream, []).append(token.logprob)
        for stream, token, _ in output.tokens:
            tokens.setdefault(stream, []).append(token.token_id)
        engine.check()
    raise AssertionError("it does not end")


@pytest.mark.parametrize("max_rows", [0, 1, 3, 100])
def test_every_token_behind_the_first_has_its_score(max_rows: int) -> None:
    engine, _ = new_engine(max_rows=max_rows, max_sequences=2)
    engine.add(asked := request(0, PROMPT, sampling=SCORED))
    scores, tokens = told(engine)
    assert scores == {0: expected_scores(PROMPT)}
    assert tokens == {0: alone(asked)}


def test_a_prompt_of_one_token_has_none() -> None:
    engine, _ = new_engine()
    engine.add(request(0, [5], sampling=SCORED))
    assert told(engine)[0] == {}


def test_what_is_cached_is_scored_all_the_same() -> None:
    engine, _ = new_engine()
    engine.add(request(0, PROMPT))
    told(engine)
    engine.add(request(1, PROMPT, sampling=SCORED))
    assert told(engine)[0] == {1: expected_scores(PROMPT)}
    engine.add(request(2, PROMPT))
    assert engine.step().admitted[0][1] > 0, "what was computed for scores is cached too"


def test_the_first_choice_alone_is_scored() -> None:
    engine, _ = new_engine()
    engine.add(asked := request(0, PROMPT, sampling=SCORED, n=3))
    scores, tokens = told(engine)
    assert scores == {0: expected_scores(PROMPT)}
    assert tokens == {choice: alone(asked, choice) for choice in range(3)}


@settings(max_examples=60)
@given(
    prompts=st.lists(
        st.tuples(st.integers(1, 30), st.integers(0, 2), st.booleans()), min_size=1, max_size=6
    ),
    max_rows=st.integers(0, 12),
    num_blocks=st.integers(10, 40),
    step_tokens=st.integers(4, 24),
)
def test_scores_do_not_depend_on_company_or_memory(
    prompts: list[tuple[int, int, bool]], max_rows: int, num_blocks: int, step_tokens: int
) -> None:
    engine, runner = new_engine(
        max_rows=max_rows, max_sequences=4, num_blocks=num_blocks, step_tokens=step_tokens
    )
    assert isinstance(runner, FakeRunner)
    wanted, expected = {}, {}
    for stream, (length, first, scored) in enumerate(prompts):
        prompt = [first, *range(1, length)]
        sampling = SCORED if scored else SamplingParams()
        engine.add(request(stream, prompt, sampling=sampling))
        expected[stream] = alone(request(stream, prompt))
        if scored and length > 1:
            wanted[stream] = expected_scores(prompt)
    scores, tokens = told(engine)
    assert scores == wanted
    assert tokens == expected


def computed(runner: FakeRunner) -> list[int]:
    """Return how many tokens of each sequence the last step computed."""
    assert runner.last_batch is not None
    return [stop - start for start, stop in pairwise(runner.last_batch.cu_seqlens_q)]


def test_a_prompt_gets_what_one_that_is_scored_has_no_rows_for() -> None:
    engine, runner = new_engine(max_rows=6, max_sequences=4, step_tokens=20)
    engine.add(request(0, range(100, 140), sampling=SCORED))
    engine.add(request(1, range(200, 240)))
    engine.step()
    assert computed(runner) == [5, 12]  # 6 rows, of which one is the other's; in whole blocks
    engine.step()
    assert computed(runner) == [5, 12]
    told(engine)
    assert runner.num_steps < 40 / 5 + 6


@pytest.mark.parametrize("principals", [("a", "b"), ("b", "a"), (None, "a")])
def test_rows_for_scores_are_shared_as_tokens_are(
    principals: tuple[str | None, str | None],
) -> None:
    engine, runner = new_engine(max_rows=10, max_sequences=4, step_tokens=40)
    for stream, principal in enumerate(principals):
        engine.add(
            request(
                stream, range(50 * stream, 50 * stream + 50), sampling=SCORED, principal=principal
            )
        )
    total: Counter[int] = Counter()
    for _ in range(4):
        engine.step()
        total.update(dict(enumerate(computed(runner))))
    assert total[0] + total[1] == 4 * 10
    assert abs(total[0] - total[1]) <= 10


@pytest.mark.parametrize(("length", "steps_before"), [(3, 0), (37, 0), (37, 1)])
def test_no_choice_says_anything_before_all_scores(length: int, steps_before: int) -> None:
    # With room for no row more than one a sequence, other choices of a short prompt were quicker.
    engine, _ = new_engine(max_rows=0, max_sequences=4)
    engine.add(request(4, [1, 2]))
    prompt = list(range(3, 3 + length))
    engine.add(request(0, prompt, sampling=SCORED, n=3))
    outputs = [engine.step() for _ in range(steps_before)]
    if outputs:
        engine.pause(0)  # a reader is slow: its other choices do not get ahead
        outputs += [engine.step() for _ in range(10)]
        engine.resume(0)
    outputs += [engine.step() for _ in range(50)]
    assert not engine.has_work()
    told_of = [
        stream
        for output in outputs
        for stream in [-1 for _ in output.scores] + [each[0] for each in output.tokens]
        if stream != 4
    ]
    assert told_of[: length - 1] == [-1] * (length - 1)
    assert {*told_of[length - 1 :]} == {0, 1, 2}
