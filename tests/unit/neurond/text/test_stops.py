"""Stop strings, whatever the pieces the text comes in."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from neurond.text.stops import StopMatcher

LETTERS = st.text(alphabet="ab\n", max_size=40)
STOPS = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=5), max_size=4)


def oracle(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Look at every prefix; the first that ends with a stop string is where the text ends."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


def run(pieces: list[str], stops: list[str]) -> tuple[str, str | None]:
    matcher = StopMatcher(stops)
    got = ""
    for piece in pieces:
        text, stop = matcher.push(piece)
        got += text
        if stop is not None:
            return got, stop
    return got + matcher.flush(), None


def cut(text: str, places: list[int]) -> list[str]:
    bounds = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in itertools.pairwise(bounds)]


@given(LETTERS, STOPS, st.lists(st.integers(0, 40)))
def test_the_text_ends_before_the_first_complete_stop_string(
    text: str, stops: list[str], places: list[int]
) -> None:
    assert run(cut(text, places), stops) == oracle(text, stops)


@given(LETTERS, STOPS)
def test_nothing_is_given_out_that_may_still_become_a_stop_string(
    text: str, stops: list[str]
) -> None:
    matcher = StopMatcher(stops)
    given_out = ""
    for place, character in enumerate(text):
        piece, stop = matcher.push(character)
        given_out += piece
        if stop is not None:
            return
        held = text[len(given_out) : place + 1]
        assert matcher.held == held
        longest = max((len(stop) for stop in stops), default=0)
        assert len(held) < max(1, longest)
        assert not held or any(stop.startswith(held) for stop in stops)


def test_without_stop_strings_text_passes_through() -> None:
    matcher = StopMatcher(())
    assert matcher.push("abc") == ("abc", None)
    assert matcher.flush() == ""
