"""Guesses at what comes next: where they come from, and how many are made."""

from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurond.engine.drafts import (
    INDEXED_PER_STEP,
    LONGEST_REST,
    MAX_DRAFT_TOKENS,
    NGRAM_TOKENS,
    Drafter,
    NgramIndex,
    continuation,
    most_drafts,
)

TOKENS = st.lists(st.integers(0, 1), max_size=80)
REPEATING = array("i", [5, 6, 7, 8] * 4)


def guessed(index: NgramIndex, tokens: array, most: int) -> list[int]:
    distance = index.distance(tokens)
    return list(continuation(tokens, distance, most)) if distance else []


def looked_up(tokens: list[int], most: int) -> list[int]:
    """Search backwards for the last n-gram; what followed it, and again if that reaches the end."""
    last = tokens[-NGRAM_TOKENS:]
    for place in range(len(tokens) - 1, NGRAM_TOKENS - 1, -1):
        if tokens[place - NGRAM_TOKENS : place] == last:
            return (tokens[place:] * most)[:most]
    return []


@given(TOKENS, st.integers(1, MAX_DRAFT_TOKENS))
def test_a_continuation_is_what_followed_the_last_tokens_before(tokens, most) -> None:
    index = NgramIndex(len(tokens))
    grown = array("i")
    for token in tokens:
        grown.append(token)
        index.index(grown)
        assert guessed(index, grown, most) == looked_up(list(grown), most)


@given(st.lists(st.integers(0, 2**31 - 1), max_size=40), st.integers(1, 5))
def test_what_collides_is_never_taken_for_another(beginning, most) -> None:
    index = NgramIndex(1)
    tokens = array("i", range(3 * INDEXED_PER_STEP))  # more n-grams than slots
    for _ in range(3):
        index.index(tokens)
    tokens.extend(beginning)
    found = guessed(index, tokens, most)
    assert found in ([], looked_up(list(tokens), most))


def test_a_long_sequence_is_indexed_step_by_step() -> None:
    index = NgramIndex(10)
    tokens = array("i", [1, 2, 3, 4, *range(10, 3 * INDEXED_PER_STEP), 6, 7, 8, 9])
    tokens.extend([6, 7, 8])
    found = []
    for _ in range(4):
        index.index(tokens)
        found.append(guessed(index, tokens, 1))
    assert found == [[], [], [9], [9]] or found == [[], [], [], [9]]


def test_guesses_that_come_true_grow_to_the_most() -> None:
    drafter = Drafter()
    lengths = []
    for _ in range(4):
        draft = drafter.draft(REPEATING, MAX_DRAFT_TOKENS)
        lengths.append(len(draft))
        drafter.verified(len(draft))
    assert lengths == [3, 5, 5, 5]
    assert len(drafter.draft(REPEATING, 2)) == 2


def test_guesses_that_do_not_come_true_get_rare_and_short() -> None:
    drafter = Drafter()
    drafted = []
    for step in range(1000):
        if draft := drafter.draft(REPEATING, MAX_DRAFT_TOKENS):
            drafted.append(step)
            drafter.verified(0)
            assert len(draft) == (3 if step == 0 else 1)
    rests = [later - earlier - 1 for earlier, later in pairwise(drafted)]
    assert rests == [1, 2, 4, 8, 16, 32, *[LONGEST_REST] * (len(rests) - 6)]


def test_one_that_comes_true_ends_the_rests() -> None:
    drafter = Drafter()
    for accepted in (0, 0, 0, 1, 0):
        while not drafter.draft(REPEATING, MAX_DRAFT_TOKENS):
            pass
        drafter.verified(accepted)
    assert not drafter.draft(REPEATING, MAX_DRAFT_TOKENS)
    assert drafter.draft(REPEATING, MAX_DRAFT_TOKENS)


def test_what_is_copied_is_copied_on_where_it_stands_twice() -> None:
    """A copy of the first of two texts that are alike in places does not jump to the second."""
    alike = [50, 51, 52]
    first = [1, 2, 3, *alike, 4, 5, 6, *alike, 7, 8, 9, 10]
    tokens = array("i", [*first, *alike, 90, 91, *alike, 92, 93, 1, 2, 3])
    drafter, steps, copied = Drafter(), 0, 3
    while copied < len(first):
        draft = drafter.draft(tokens, MAX_DRAFT_TOKENS).tolist()
        assert draft == first[copied : copied + len(draft)] or copied + len(draft) > len(first)
        tokens.extend(first[copied : copied + len(draft) + 1])
        drafter.verified(len(draft))
        copied, steps = copied + len(draft) + 1, steps + 1
    assert steps == 3


def test_a_word_that_is_replaced_does_not_end_a_copy() -> None:
    text = list(range(1, 20))
    tokens = array("i", [*text, 99, 1, 2, 3])
    drafter = Drafter()
    assert drafter.draft(tokens, MAX_DRAFT_TOKENS).tolist() == [4, 5, 6]
    tokens.extend([4, 5, 77])
    drafter.verified(2)
    assert not drafter.draft(tokens, MAX_DRAFT_TOKENS)
    tokens.append(7)
    assert drafter.draft(tokens, MAX_DRAFT_TOKENS).tolist() == [8, 9, 10, 11, 12]


@pytest.mark.parametrize(
    ("num_decodes", "most"), [(0, 0), (1, 5), (2, 2), (3, 1), (4, 0), (64, -1)]
)
def test_more_sequences_draft_less(num_decodes: int, most: int) -> None:
    assert most_drafts(num_decodes, 6) == most


@given(st.integers(1, 100), st.integers(0, 100))
def test_no_step_has_more_rows_than_it_may(num_decodes, max_rows) -> None:
    most = most_drafts(num_decodes, max_rows)
    assert most < 1 or num_decodes * (1 + most) <= max_rows
