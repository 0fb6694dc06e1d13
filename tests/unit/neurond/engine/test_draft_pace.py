"""How many rows steps with drafts may have, by what tokens cost."""

from collections.abc import Callable

import pytest

from neurond.engine.draft_pace import FEW_ROWS, LONGEST_REST, NARROW_EVERY, DraftPace

MOST = 32
STREAMS = 4


def widths(
    step_s: Callable[[int], float], accepted: float, num_steps: int, streams: int = STREAMS
) -> list[int]:
    """Return the rows of steps of which so much of what is drafted comes true."""
    pace, found = DraftPace(), []
    for step in range(num_steps):
        most = pace.most_rows(streams, MOST)
        # Now and then nobody has a guess.
        rows = streams if step % 20 == 0 else max(streams, most // streams * streams)
        found.append(rows)
        num_tokens = streams + int((rows - streams) * accepted)
        pace.took(streams, rows, num_tokens, step_s(rows))
    return found


def share_of_wide(rows: list[int], streams: int = STREAMS) -> float:
    return sum(each > max(FEW_ROWS, streams) for each in rows) / len(rows)


def reading(rows: int) -> float:
    return 0.010 + 0.0001 * rows


def multiplying(rows: int) -> float:
    return 0.001 + 0.001 * rows


def test_rows_that_cost_nothing_are_used() -> None:
    assert share_of_wide(widths(reading, 0.3, 400)) > 0.9


def test_rows_that_cost_are_used_where_most_guesses_come_true() -> None:
    assert share_of_wide(widths(multiplying, 1.0, 400)) > 0.9


@pytest.mark.parametrize("streams", [2, 4, 8])
def test_rows_that_cost_more_than_they_bring_are_left_alone(streams: int) -> None:
    rows = widths(multiplying, 0.2, 2000, streams)
    assert share_of_wide(rows[1000:], streams) < 0.2


def test_it_is_tried_again_when_the_load_has_changed() -> None:
    pace = DraftPace()
    for step_s, accepted, wanted in ((multiplying, 0.0, False), (multiplying, 1.0, True)):
        last = []
        for step in range(40 * LONGEST_REST):
            rows = pace.most_rows(STREAMS, MOST) if step % 20 else STREAMS
            last.append(rows > FEW_ROWS)
            num_tokens = STREAMS + int((rows - STREAMS) * accepted)
            pace.took(STREAMS, rows, num_tokens, step_s(rows))
        assert (sum(last[-200:]) > 150) == wanted


def test_few_rows_are_never_withheld() -> None:
    pace = DraftPace()
    for _ in range(100):
        assert pace.most_rows(1, FEW_ROWS) == FEW_ROWS
        assert pace.most_rows(2, MOST) >= FEW_ROWS
        pace.took(2, MOST, 2, 1.0)
        pace.took(2, 2, 2, 0.1)


def test_what_is_not_known_is_tried_and_few_rows_are_tried_again() -> None:
    pace = DraftPace()
    found = []
    for _ in range(2 * (NARROW_EVERY + 1)):
        rows = pace.most_rows(STREAMS, MOST)
        found.append(rows)
        pace.took(STREAMS, rows, rows, reading(rows))
    assert found.count(FEW_ROWS) == 2
    assert found[NARROW_EVERY] == FEW_ROWS


def test_what_others_decode_says_nothing() -> None:
    pace = DraftPace()
    for _ in range(50):
        pace.took(8, MOST, 8, 1.0)
        pace.took(8, 8, 8, 0.001)
    assert pace.most_rows(8, MOST) == FEW_ROWS
    assert pace.most_rows(4, MOST) == MOST
