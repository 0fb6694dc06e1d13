"""Prompts of every kind to token ids."""

import pytest

from cortex_core.canonical import ChatPrompt, Message, TextPart, TextPrompt, TokensPrompt, Tool
from cortex_core.errors import InvalidRequest
from neurond.text.model_text import ModelText, is_small
from neurond.text.template import ChatTemplate
from tests.fakes.tokenizers_made import BOS, byte_level, model_tokenizer, prepared

TOKENIZER = byte_level()
BEGIN = TOKENIZER.token_to_id(BOS)


def model_text(template: str | None = None, *, adds_bos: bool = False) -> ModelText:
    compiled = ChatTemplate(template, model="m", special_tokens={}) if template else None
    return ModelText(prepared(TOKENIZER), model_tokenizer(TOKENIZER, adds_bos=adds_bos), compiled)


def chat(text: str) -> ChatPrompt:
    return ChatPrompt((Message("user", (TextPart(text),)),))


def test_plain_text_gets_the_begin_token_if_the_model_wants_it() -> None:
    plain = model_text().token_ids(TextPrompt("ab"))
    assert model_text(adds_bos=True).token_ids(TextPrompt("ab")) == [BEGIN, *plain]


def test_a_conversation_has_the_special_tokens_of_its_template_only() -> None:
    ids = model_text(f"{BOS}{{{{ messages[0].content }}}}", adds_bos=True).token_ids(chat("x"))
    assert ids.count(BEGIN) == 1
    assert ids[0] == BEGIN


def test_token_ids_are_taken_as_they_are_but_must_exist() -> None:
    assert model_text().token_ids(TokensPrompt((3, 1, 2))) == [3, 1, 2]
    for wrong in (-1, TOKENIZER.get_vocab_size()):
        with pytest.raises(InvalidRequest, match=f"token id {wrong} is not in the vocabulary"):
            model_text().token_ids(TokensPrompt((3, wrong)))


def test_without_a_template_the_error_says_what_to_set() -> None:
    with pytest.raises(InvalidRequest, match="set chat_template") as caught:
        model_text().token_ids(chat("x"))
    assert caught.value.param == "messages"


@pytest.mark.parametrize("prompt", [TextPrompt(""), TokensPrompt(())])
def test_an_empty_prompt_is_refused(prompt: TextPrompt | TokensPrompt) -> None:
    with pytest.raises(InvalidRequest, match="no tokens"):
        model_text().token_ids(prompt)


def test_only_short_prompts_are_tokenised_on_the_loop() -> None:
    assert is_small(TextPrompt("short"))
    assert is_small(chat("short"))
    assert is_small(TokensPrompt(tuple(range(10))))
    assert not is_small(TextPrompt("long " * 1000))
    assert not is_small(chat("long " * 1000))
    assert not is_small(ChatPrompt(chat("short").messages, tools=(Tool("f"),)))
