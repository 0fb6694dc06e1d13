"""Conversations with images through chat templates of several kinds."""

import json

import pytest

from cortex_core.canonical import (
    ChatPrompt,
    MediaPart,
    Message,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from cortex_core.errors import InternalError, InvalidRequest, WrongModality
from neurond.text.image_marks import WORD_JOINER, image_mark
from neurond.text.template import ChatTemplate, Rendered
from tests.fakes.tiny_vision_templates import IDEFICS_TEMPLATE, LLAVA_TEMPLATE, QWEN_TEMPLATE

TEXT_ONLY = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
IN_USER_TURNS_ONLY = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'user' and m.content is not string %}"
    "{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
JOINS_RESULTS = IN_USER_TURNS_ONLY.replace("{% else %}{{ m.content }}", "{% else %}{{ JOINED }}")
JOINS_RESULTS = JOINS_RESULTS.replace(
    "JOINED", "m.content if m.role != 'tool' else ' ' + m.content"
)
ONE, TWO = (MediaPart("image", "image/png", data) for data in (b"1", b"2"))


def rendered(source: str, placeholder: str, *messages: Message) -> Rendered:
    template = ChatTemplate(source, model="m", special_tokens={}, placeholder=placeholder)
    return template.render(ChatPrompt(messages), tool_parser="none")


def images_of(found: Rendered) -> list[bytes | None]:
    return [image.part.data for image in found.images]


def test_an_image_stands_where_it_was_sent() -> None:
    user = Message("user", (TextPart("a"), ONE, TextPart("b"), TextPart("c"), TWO))
    found = rendered(QWEN_TEMPLATE, "<|image_pad|>", user)
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    assert found.text.startswith(f"<|im_start|>user\na{picture}b\nc{picture}<|im_end|>")
    assert images_of(found) == [b"1", b"2"]
    assert [image.place for image in found.images] == [
        "messages[0].content[1]",
        "messages[0].content[4]",
    ]


def test_a_template_that_puts_images_first() -> None:
    user = Message("user", (TextPart("a"), ONE, TextPart("b"), TWO))
    found = rendered(LLAVA_TEMPLATE, "<image>", user)
    assert found.text.startswith("USER: <image>\n<image>\nab ")
    assert images_of(found) == [b"1", b"2"]


def test_a_template_that_knows_only_parts_shows_text_that_is_alone() -> None:
    found = rendered(IDEFICS_TEMPLATE, "<image>", Message("user", (TextPart("hello"),)))
    assert found.text.startswith("User:hello<end_of_utterance>")
    assert found.images == ()


def test_a_turn_without_content_for_a_template_that_knows_only_parts() -> None:
    found = rendered(IDEFICS_TEMPLATE, "<image>", Message("user", ()))
    assert found.text.startswith("User:<end_of_utterance>")


def with_result(*content: TextPart | MediaPart) -> tuple[Message, ...]:
    return (
        Message("user", (TextPart("look"),)),
        Message("assistant", (ToolCallPart("c", "see", "{}"),)),
        Message("tool", (ToolResultPart("c", content),)),
    )


def test_an_image_in_a_result() -> None:
    found = rendered(QWEN_TEMPLATE, "<|image_pad|>", *with_result(TextPart("here"), ONE))
    assert "tool\nhere<|vision_start|><|image_pad|>" in found.text
    assert images_of(found) == [b"1"]


def test_an_image_that_is_not_shown_in_a_result_follows_it() -> None:
    found = rendered(IN_USER_TURNS_ONLY, "<image>", *with_result(TextPart("here"), ONE))
    assert found.text.endswith("[tool]here[user]<image>")
    assert images_of(found) == [b"1"]


def test_an_image_in_a_result_of_a_template_that_knows_only_text_there() -> None:
    for source in (JOINS_RESULTS, JOINS_RESULTS.replace("' + m.content", "' + m.content.strip()")):
        found = rendered(source, "<image>", *with_result(TextPart("here"), ONE))
        assert found.text == "[user]look[assistant][tool] here[user]<image>"
        assert images_of(found) == [b"1"]


def test_a_template_that_fails_over_every_form_says_where() -> None:
    source = TEXT_ONLY.replace("{{ m.content }}", "{{ 'text' + m.content }}")
    with pytest.raises(InternalError, match="fails in line 1: TypeError"):
        rendered(source, "<image>", Message("user", (ONE,)))


def test_a_template_that_shows_no_images() -> None:
    with pytest.raises(InvalidRequest, match="shows '<image>' 0 times for 1 images"):
        rendered(TEXT_ONLY, "<image>", Message("user", (ONE,)))


@pytest.mark.parametrize("text", [image_mark(0), image_mark(7)])
def test_text_that_looks_like_a_mark_of_ours(text: str) -> None:
    with pytest.raises(InvalidRequest, match="times for 1 images"):
        rendered(LLAVA_TEMPLATE, "<image>", Message("user", (ONE, TextPart(text))))


@pytest.mark.parametrize("images", [(), (ONE,)])
def test_what_stands_for_an_image_is_text_where_somebody_wrote_it(
    images: tuple[MediaPart, ...],
) -> None:
    said = "an <|image_pad|> and a <feature>"
    template = ChatTemplate(
        QWEN_TEMPLATE,
        model="m",
        special_tokens={},
        placeholder="<|image_pad|>",
        image_token="<feature>",
    )
    tool = Tool("see", said, {"properties": {"it": {"enum": [said, 1, None]}}})
    call = ToolCallPart("c", "see", json.dumps({"it": said}))
    result = ToolResultPart("c", (TextPart(said),))
    found = template.render(
        ChatPrompt(
            (
                Message("system", (TextPart(said),)),
                Message("user", (*images, TextPart(said))),
                Message("assistant", (TextPart(said), call)),
                Message("tool", (result,)),
            ),
            tools=(tool,),
        )
    )
    assert found.text.count("<|image_pad|>") == len(images) == len(found.images)
    assert "<feature>" not in found.text
    assert said in found.text.replace(WORD_JOINER, "")


def test_text_is_handed_on_as_it_is_to_a_model_of_text() -> None:
    template = ChatTemplate(LLAVA_TEMPLATE, model="m", special_tokens={})
    found = template.render(ChatPrompt((Message("user", (TextPart("an <image> tag"),)),)))
    assert "an <image> tag" in found.text


@pytest.mark.parametrize(
    ("part", "error", "why"),
    [
        (MediaPart("image", url="http://x"), InvalidRequest, "not fetched from URLs"),
        (MediaPart("audio", "audio/wav", b"x"), WrongModality, "takes text and images"),
        (MediaPart("file", "application/pdf", b"x"), WrongModality, "takes text and images"),
    ],
)
def test_what_a_model_that_takes_images_does_not_take(
    part: MediaPart, error: type[Exception], why: str
) -> None:
    for messages in ((Message("user", (part,)),), with_result(part)):
        with pytest.raises(error, match=why) as caught:
            rendered(LLAVA_TEMPLATE, "<image>", *messages)
        assert caught.value.param == f"messages[{len(messages) - 1}].content[0]"
