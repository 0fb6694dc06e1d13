"""What the benchmark of drafts shows of its answers."""

from types import SimpleNamespace
from typing import cast

import pytest

from bench.speculation import HEADS, MAX_TOKENS, Answer, Outcome, compared
from cortex_core.canonical import SamplingParams
from neurond.engine.engine import Engine


def answers(*walls_s: float, spent: float) -> list[Answer]:
    return [Answer((1, 2), wall_s, spent) for wall_s in walls_s]


def test_a_row_has_medians_and_their_ratio() -> None:
    second = (MAX_TOKENS - 1) / 100  # in which one token takes 10 ms
    outcome = Outcome(
        off=answers(second, second / 2, second * 2, spent=3.0),
        ngram=answers(second / 4, second / 2, second / 2, spent=2.0),
        drafted=30,
        accepted=20,
    )
    assert outcome.cells() == ["100 (50 to 200)", "200 (200 to 400)", "2.00", "1.50", "30", "20"]
    assert len(HEADS) == 1 + len(outcome.cells())


class FakeEngine:
    """Gives the same tokens to each request, `per_step` in each step, all but one as drafts."""

    def __init__(self, token_ids: list[int], per_step: int) -> None:
        self.scheduler = SimpleNamespace(num_drafted_tokens=0, num_accepted_tokens=0)
        self.num_requests = 0
        self._token_ids = token_ids
        self._per_step = per_step
        self._left: list[int] = []

    def add(self, _: object) -> None:
        self.num_requests += 1
        self._left = list(self._token_ids)

    def has_work(self) -> bool:
        return bool(self._left)

    def step(self) -> SimpleNamespace:
        now, self._left = self._left[: self._per_step], self._left[self._per_step :]
        self.scheduler.num_drafted_tokens += self._per_step
        self.scheduler.num_accepted_tokens += len(now) - 1
        return SimpleNamespace(tokens=[("r", SimpleNamespace(token_id=id_), 0) for id_ in now])


def both(ngram: list[int]) -> dict[str, FakeEngine]:
    return {"off": FakeEngine([1, 2, 3, 4, 5, 6], 1), "ngram": FakeEngine(ngram, 3)}


def test_engines_take_turns_and_drafts_are_those_of_one_answer() -> None:
    engines = both([1, 2, 3, 4, 5, 6])
    found = compared(cast("dict[str, Engine]", engines), [9], SamplingParams(), 4)
    assert (len(found.off), len(found.ngram)) == (4, 4)
    assert {engine.num_requests for engine in engines.values()} == {5}, "one to warm up"
    assert (found.drafted, found.accepted) == (6, 4)
    assert all(each.wall_s >= 0 and len(each.tokens) == 6 for each in found.off)


def test_a_text_that_drafts_changed_is_told() -> None:
    with pytest.raises(SystemExit, match="speculation changed the text"):
        compared(cast("dict[str, Engine]", both([1, 2, 3, 4, 5, 7])), [9], SamplingParams(), 1)
