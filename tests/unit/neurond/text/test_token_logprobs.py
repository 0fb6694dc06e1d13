from neurond.stream_items import Token
from neurond.text.parsed_choice import logprobs_of
from neurond.text.pieces import TokenPieces
from tests.fakes.tokenizers_made import byte_level

TOKENIZER = byte_level()
PIECES = TokenPieces(TOKENIZER)


def test_tokens_tell_their_text_and_parts_of_characters_their_bytes() -> None:
    whole, *parts = TOKENIZER.encode("a😀", add_special_tokens=False).ids
    assert len(parts) > 1
    (told,) = logprobs_of(Token(0, whole, -0.5, ((whole, -0.5), (parts[0], -1.5))), PIECES)
    assert (told.text, told.raw, told.spelled) == ("a", None, b"a")
    assert [each.logprob for each in told.top] == [-0.5, -1.5]
    assert [each.spelled for each in told.top] == [b"a", "😀".encode()[: len(told.top[1].spelled)]]
    spelled = [logprobs_of(Token(0, part, -1.0, ()), PIECES)[0] for part in parts]
    assert all("\ufffd" in each.text for each in spelled)
    assert b"".join(each.raw or b"" for each in spelled) == "😀".encode()


def test_nothing_is_told_where_nothing_was_asked_for() -> None:
    assert logprobs_of(Token(0, 1, None, ()), PIECES) == ()
