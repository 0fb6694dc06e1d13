"""Prompts without the places that their media had in a request."""

from typing import TypeVar

import msgspec

from cortex_core.canonical import ChatPrompt, MediaPart, Message, Part, ToolResultPart

P = TypeVar("P", bound=Part)


def without_places(prompt: ChatPrompt) -> ChatPrompt:
    """Return the prompt as it would be of any request that says the same."""
    messages = tuple(_message(message) for message in prompt.messages)
    return msgspec.structs.replace(prompt, messages=messages)


def _message(message: Message) -> Message:
    return msgspec.structs.replace(message, content=tuple(map(_part, message.content)))


def _part(part: P) -> P:
    match part:
        case MediaPart():
            return msgspec.structs.replace(part, place=None)
        case ToolResultPart():
            return msgspec.structs.replace(part, content=tuple(map(_part, part.content)))
        case _:
            return part
