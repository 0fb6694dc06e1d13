"""What the benchmark of drafts shows of its answers."""

from types import SimpleNamespace
from typing import cast

import pytest

from bench.serve.machine import CpuUse
from bench.speculation import HEADS, Answer, Outcome, compared, told
from cortex_core.canonical import SamplingParams
from neurond.engine.engine import Engine


def answers(*walls_s: float, spent: float) -> list[Answer]:
    return [Answer(range(101), wall_s, spent) for wall_s in walls_s]


def outcome(foreign_cores: float) -> Outcome:
    return Outcome(
        off=answers(1.0, 0.5, 2.0, spent=3.0),
        ngram=answers(0.25, 0.5, 0.5, spent=2.0),
        drafted=30,
        accepted=20,
        used=CpuUse(0.0, 1.0, foreign_cores, 0.0),
    )


def test_a_row_has_medians_and_their_ratio() -> None:
    row = outcome(0.15).row("again")
    assert row == [
        "again",
        "100 (50 to 200)",
        "200 (200 to 400)",
        "2.00",
        "1.50",
        "101",
        "30",
        "20",
    ]
    assert len(HEADS) == len(row)


def test_a_row_beside_somebody_elses_work_has_a_star_and_the_reason() -> None:
    lines = told({"again": outcome(0.1), "copy": outcome(0.4)}).splitlines()
    assert any(line.startswith("| again | 100 ") for line in lines)
    assert any(line.startswith("| copy\\* | 100 ") for line in lines)
    assert lines[-2:] == ["", "- copy: other processes took 0.40 core"]
    assert told({"again": outcome(0.1)}).splitlines()[-1].startswith("| again ")


class FakeEngine:
    """Gives the same tokens to each request, `per_step` in each step, all but one as drafts.

    Notes its name in `turns` at each request.
    """

    def __init__(self, token_ids: list[int], per_step: int, name: str, turns: list[str]) -> None:
        self.scheduler = SimpleNamespace(num_drafted_tokens=0, num_accepted_tokens=0)
        self._name = name
        self._turns = turns
        self._token_ids = token_ids
        self._per_step = per_step
        self._left: list[int] = []

    def add(self, _: object) -> None:
        self._turns.append(self._name)
        self._left = list(self._token_ids)

    def has_work(self) -> bool:
        return bool(self._left)

    def step(self) -> SimpleNamespace:
        now, self._left = self._left[: self._per_step], self._left[self._per_step :]
        self.scheduler.num_drafted_tokens += self._per_step
        self.scheduler.num_accepted_tokens += len(now) - 1
        return SimpleNamespace(tokens=[("r", SimpleNamespace(token_id=id_), 0) for id_ in now])


def both(ngram: list[int], turns: list[str]) -> dict[str, FakeEngine]:
    return {
        "off": FakeEngine([1, 2, 3, 4, 5, 6], 1, "off", turns),
        "ngram": FakeEngine(ngram, 3, "ngram", turns),
    }


def test_engines_take_turns_and_drafts_are_those_of_one_answer() -> None:
    turns: list[str] = []
    engines = both([1, 2, 3, 4, 5, 6], turns)
    found = compared(cast("dict[str, Engine]", engines), [9], SamplingParams(), 4)
    assert (len(found.off), len(found.ngram)) == (4, 4)
    assert turns == ["off", "ngram"] * 5, "of which the first turn warms up"
    assert (found.drafted, found.accepted) == (6, 4)
    assert all(each.wall_s >= 0 and len(each.tokens) == 6 for each in found.off)


def test_a_text_that_drafts_changed_is_told() -> None:
    with pytest.raises(SystemExit, match="speculation changed the text"):
        compared(cast("dict[str, Engine]", both([1, 2, 3, 4, 5, 7], [])), [9], SamplingParams(), 1)
