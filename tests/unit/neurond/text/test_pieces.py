"""Which decoders can be streamed."""

import pytest
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel

from cortex_core.errors import ModelLoadFailed
from neurond.text.pieces import TokenPieces


def made(decoder: object) -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({"▁a": 0, "b": 1, "<0x41>": 2, "<0xZZ>": 3}, unk_token="b"))
    tokenizer.decoder = decoder
    return tokenizer


def test_metaspace_keeps_the_space_that_continues_a_prompt() -> None:
    assert TokenPieces(made(decoders.Metaspace())).piece(0) == b" a"


def test_strip_is_left_out_because_the_text_continues_a_prompt() -> None:
    steps = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Strip(" ", 1, 0)]
    )
    pieces = TokenPieces(made(steps))
    assert [pieces.piece(id_) for id_ in range(4)] == [b" a", b"b", b"A", b"<0xZZ>"]


def test_without_a_decoder_tokens_are_words() -> None:
    tokenizer = Tokenizer(WordLevel({"a": 0}, unk_token="a"))
    assert TokenPieces(tokenizer).piece(0) == b" a"


def test_a_decoder_that_looks_at_neighbours_is_refused() -> None:
    with pytest.raises(ModelLoadFailed, match="WordPiece"):
        TokenPieces(made(decoders.WordPiece()))
