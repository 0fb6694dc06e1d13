"""Text that is read, given back and looked at again."""

import pytest

from neurond.text.parsing.reader import Reader


@pytest.mark.parametrize("place", [0, 10, 9_000, 19_000])
def test_what_came_since_a_place_is_there_however_long_ago_it_was_taken(place: int) -> None:
    pieces = [f"{number:05}" for number in range(4_000)]
    text = "".join(pieces)
    reader = Reader()
    reader.mark()
    for piece in pieces:
        reader.feed(piece)
        assert reader.take(len(piece)) == piece
    assert reader.held_chars == len(text)
    assert reader.held(place) == text[place:]
