"""Streaming text equals the text decoded at once, whatever the tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurond.text.detokenizer import Detokenizer
from neurond.text.pieces import TokenPieces
from tests.fakes.tokenizers_made import BOS, EOS, byte_fallback, byte_level, model_tokenizer

BYTE_LEVEL = byte_level()
BYTE_FALLBACK = byte_fallback()
TEXTS = (
    "plain",
    "naïve café",
    "👩‍👩‍👧 family 😀",
    "สวัสดีครับ",
    "漢字とかな",
    "a\n\n\tb  c",
    "e\u0301",
)


def streamed(pieces: TokenPieces, ids: list[int]) -> str:
    detokenizer = Detokenizer(pieces)
    return "".join(detokenizer.push(id_) for id_ in ids) + detokenizer.flush()


@given(st.lists(st.integers(0, BYTE_LEVEL.get_vocab_size() - 1)))
def test_any_byte_level_tokens_equal_the_librarys_own_decode(ids: list[int]) -> None:
    assert streamed(TokenPieces(BYTE_LEVEL), ids) == BYTE_LEVEL.decode(ids)


@given(st.lists(st.integers(0, BYTE_FALLBACK.get_vocab_size() - 1)))
def test_any_byte_fallback_tokens_equal_the_decode_of_their_bytes(ids: list[int]) -> None:
    pieces = TokenPieces(BYTE_FALLBACK)
    whole = b"".join(pieces.piece(id_) for id_ in ids).decode("utf-8", "replace")
    assert streamed(pieces, ids) == whole


@given(st.text())
def test_text_comes_back_through_byte_fallback(text: str) -> None:
    ids = BYTE_FALLBACK.encode(text, add_special_tokens=False).ids
    assert streamed(TokenPieces(BYTE_FALLBACK), ids) == BYTE_FALLBACK.decode(ids)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["level", "fallback"])
def test_characters_split_over_tokens_survive(tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    pieces = model_tokenizer(tokenizer).pieces
    detokenizer = Detokenizer(pieces)
    parts = [detokenizer.push(id_) for id_ in ids]
    assert "".join(parts) == text
    assert "\ufffd" not in "".join(parts)


def test_an_unfinished_character_is_replaced_at_the_end_only() -> None:
    ids = BYTE_LEVEL.encode("😀", add_special_tokens=False).ids[:-1]
    detokenizer = Detokenizer(TokenPieces(BYTE_LEVEL))
    assert [detokenizer.push(id_) for id_ in ids] == ["", "", ""]
    assert detokenizer.flush() == "\ufffd"


def test_special_tokens_are_silent_but_have_content() -> None:
    pieces = TokenPieces(BYTE_LEVEL)
    for text in (BOS, EOS):
        id_ = BYTE_LEVEL.token_to_id(text)
        assert id_ is not None
        assert pieces.piece(id_) == b""
        assert pieces.content(id_) == text.encode()


def test_added_tokens_that_are_not_special_are_text() -> None:
    id_ = BYTE_LEVEL.token_to_id("<think>")
    assert id_ is not None
    assert streamed(TokenPieces(BYTE_LEVEL), [id_]) == "<think>"


def test_unknown_ids_have_no_text() -> None:
    assert streamed(TokenPieces(BYTE_LEVEL), [10**6, -1]) == ""
