"""Fields that every dialect has and reads alike, whatever it calls them."""

import hashlib
from collections.abc import Sequence
from typing import Final

from cortex_core.canonical import MAX_PARTS, MAX_TOOLS, Tool, ToolChoice
from cortex_core.dialects.reading import refuse
from cortex_core.sizes import MAX_COUNT

MAX_MODEL_CHARS: Final = 256
"""Of a model's name; what is near a longer one would take long to find."""


def checked_model(model: str) -> str:
    """Return the client's word for the model.

    Raises:
        InvalidRequest: it is blank, or longer than any name is.
    """
    if len(model) > MAX_MODEL_CHARS:
        why = f"expected at most {MAX_MODEL_CHARS} characters, got {len(model)}"
        raise refuse("model", why)
    if not model.strip():
        raise refuse("model", "expected the name of a model, got an empty text")
    return model


def check_num_parts(num_parts: int, *, place: str = "messages") -> None:
    """Raise `InvalidRequest` unless a conversation of so many parts can be rendered.

    Asked before the parts are made: the event loop stands still meanwhile.
    """
    if num_parts > MAX_PARTS:
        why = f"expected at most {MAX_PARTS} messages and parts in them, got {num_parts}"
        raise refuse(place, why)


def check_num_tools(num_tools: int) -> None:
    """Raise `InvalidRequest` unless so many tools can be rendered."""
    if num_tools > MAX_TOOLS:
        raise refuse("tools", f"expected at most {MAX_TOOLS}, got {num_tools}")


def max_tokens_from(value: int | None) -> int | None:
    """Return the limit, lowered where no model comes near it; clients send what they please."""
    return None if value is None else min(value, MAX_COUNT)


def top_k_from(value: int | None) -> int | None:
    """Return the canonical top_k; 0 and -1 are other servers' words for no limit."""
    return None if value is None or value in (0, -1) else min(value, MAX_COUNT)


def seed_from(value: int | None) -> int | None:
    """Return a seed of 64 bits; a negative one of 63 bits is taken as two's complement."""
    if value is None or value >= 0 or value < -(2**63):
        return value
    return value + 2**64


def principal_of(user: str | None) -> str | None:
    """Return a name for fairness and accounting that does not give away what the client sent."""
    if not user:
        return None
    return "user-" + hashlib.sha256(user.encode()).hexdigest()[:16]


def as_texts(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return one text or several as a tuple, without empty ones, which can match nothing."""
    if value is None:
        return ()
    texts = (value,) if isinstance(value, str) else value
    return tuple(text for text in texts if text)


def named_choice(name: str, tools: tuple[Tool, ...], *, place: str) -> ToolChoice:
    """Return the choice of one tool by its name.

    Raises:
        InvalidRequest: naming `place`, where `tools` has no such tool.
    """
    if all(tool.name != name for tool in tools):
        raise refuse(place, f"there is no tool {name!r} in tools")
    return ToolChoice(mode="named", name=name)
