"""Prompts of every kind to token ids."""

import pytest

from cortex_core.canonical import (
    MAX_PARTS,
    MAX_TOOLS,
    ChatPrompt,
    Message,
    ReasoningPart,
    TextPart,
    TextPrompt,
    TokensPrompt,
    Tool,
)
from cortex_core.errors import InvalidRequest
from neurond.text.model_text import ModelText, is_small
from neurond.text.template import ChatTemplate
from neurond.text.tokenizer import ModelTokenizer
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


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        (TextPrompt("see <image>"), "prompt"),
        (chat("see <image>"), "messages"),
        (TokensPrompt((1, TOKENIZER.get_vocab_size())), "prompt"),
    ],
)
def test_a_token_that_only_the_tokenizer_knows_is_refused(
    prompt: TextPrompt | ChatPrompt | TokensPrompt, param: str
) -> None:
    manifest = prepared(TOKENIZER)
    larger = byte_level()
    larger.add_special_tokens(["<image>"])
    template = ChatTemplate("{{ messages[0].content }}", model="m", special_tokens={})
    text = ModelText(manifest, ModelTokenizer(larger, manifest), template)
    with pytest.raises(InvalidRequest, match="is not in the ") as caught:
        text.token_ids(prompt)
    assert caught.value.param == param
    assert text.token_ids(TextPrompt("see")) == model_text().token_ids(TextPrompt("see"))


def test_a_conversation_has_so_many_parts_at_most() -> None:
    text = model_text("{% for m in messages %}.{% endfor %}")
    empty = Message("user", ())
    assert len(text.token_ids(ChatPrompt((empty,) * MAX_PARTS))) == MAX_PARTS
    two = Message("user", (TextPart(""), TextPart("")))
    for messages in ((empty,) * (MAX_PARTS + 1), (two,) * (MAX_PARTS // 2 + 1)):
        with pytest.raises(InvalidRequest, match="leave out some") as caught:
            text.token_ids(ChatPrompt(messages))
        assert caught.value.param == "messages"


def test_a_conversation_has_so_many_tools_at_most() -> None:
    text = model_text("{% for t in tools %}.{% endfor %}")
    messages = chat("x").messages
    assert len(text.token_ids(ChatPrompt(messages, tools=(Tool("f"),) * MAX_TOOLS))) == MAX_TOOLS
    with pytest.raises(InvalidRequest, match="it has 4097 tools") as caught:
        text.token_ids(ChatPrompt(messages, tools=(Tool("f"),) * (MAX_TOOLS + 1)))
    assert caught.value.param == "tools"


def test_what_is_nested_too_deeply_for_the_template_is_refused() -> None:
    deep: dict[str, object] = {}
    for _ in range(2000):
        deep = {"a": deep}
    prompt = ChatPrompt(chat("x").messages, template_kwargs={"deep": deep})
    with pytest.raises(InvalidRequest, match="nested too deeply") as caught:
        model_text("{{ deep | tojson }}").token_ids(prompt)
    assert caught.value.param == "messages"


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
    assert not is_small(TokensPrompt((1,) * 100_000))
    assert not is_small(TextPrompt("long " * 1000))
    assert not is_small(chat("long " * 1000))
    assert not is_small(ChatPrompt(chat("short").messages, tools=(Tool("f"),)))
    assert not is_small(ChatPrompt(chat("").messages * 17))
    assert not is_small(ChatPrompt((Message("user", (TextPart(""),) * 17),)))
    assert not is_small(ChatPrompt(chat("short").messages, template_kwargs={"documents": []}))
    assert not is_small(ChatPrompt((Message("user", (ReasoningPart("thoughts"),)),)))
