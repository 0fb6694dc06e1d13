"""Images on their way through a chat template: marks in the text of turns, then parts. Pure.

Until a conversation is rendered its turns are strings, so that what joins and moves them (see
`neurond.text.message_forms`) need not know of images; a mark holds the place of each.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple

from cortex_core.canonical import JsonObject, MediaPart

_MARK: Final = re.compile("\ue001image ([0-9]{1,6})\ue001")
"""The frame is a character for private use. A client that writes marks itself has one too many."""


WORD_JOINER: Final = "\u2060"
"""Has no width, and forbids a line break, where there would be none anyway."""


class FoundImage(NamedTuple):
    """An image in a request, and where it is there."""

    place: str
    """Such as `messages[0].content[1]`."""
    part: MediaPart


def image_mark(index: int) -> str:
    """Return what holds the place of image number `index`."""
    return f"\ue001image {index}\ue001"


def has_image(content: str) -> bool:
    """Tell whether an image has its place in a turn."""
    return _MARK.search(content) is not None


def without_images(content: str) -> tuple[str, str]:
    """Return a turn's text, and the marks that were in it."""
    marks = "".join(mark.group() for mark in _MARK.finditer(content))
    return _MARK.sub("", content), marks


def with_harmless_text(value: Any, tokens: Collection[str]) -> Any:
    """Return what a template gets with every one of `tokens` in its strings broken in two.

    A tokenizer takes the text of a special token for that token, whoever wrote it. Broken by a
    character that does not show, it is text like any other.

    Args:
        value: strings, lists and dictionaries of them, and whatever else JSON has.
        tokens: texts of tokens.
    """
    if isinstance(value, str):
        for token in tokens:
            if token in value:
                value = value.replace(token, f"{token[:1]}{WORD_JOINER}{token[1:]}")
        return value
    if isinstance(value, dict):
        return {key: with_harmless_text(each, tokens) for key, each in value.items()}
    if isinstance(value, list):
        return [with_harmless_text(each, tokens) for each in value]
    return value


def with_parts(
    messages: Iterable[JsonObject], *, every: bool
) -> tuple[list[JsonObject], list[int]]:
    """Return messages with parts for content that has images, and the images in their order.

    With `every`, text is a part too where it is alone: some templates know nothing else.
    """
    order: list[int] = []
    return [_with_parts(message, order, every=every) for message in messages], order


def _with_parts(message: JsonObject, order: list[int], *, every: bool) -> JsonObject:
    content = message.get("content")
    if not isinstance(content, str) or not (every or has_image(content)):
        return message
    parts: list[JsonObject] = []
    # Text and numbers of images by turns, beginning and ending with text.
    for place, piece in enumerate(_MARK.split(content)):
        if place % 2:
            order.append(int(piece))
            parts.append({"type": "image"})
        elif piece:
            parts.append({"type": "text", "text": piece})
    return {**message, "content": parts or [{"type": "text", "text": ""}]}
