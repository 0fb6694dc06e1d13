"""Thinking in Anthropic's dialect: how it is asked for, and what a thought is signed with."""

import base64
import binascii
from typing import Final

import msgspec

from cortex_core.canonical import JsonObject, Message

SIGNATURE: Final = "cortex"
"""Clients drop thinking without a signature from their history, and never look inside it."""
_SEAL: Final = f"{SIGNATURE}:"
"""Before the thought itself, where a client wants to see none of it but sends it back."""


class Thinking(msgspec.Struct, frozen=True):
    type: str
    """`enabled`, `adaptive`, `between_tools` or `disabled`; a later one is taken as `enabled`."""
    budget_tokens: int | None = None
    display: str | None = None
    """`omitted`: the answer has thinking blocks without text. Else the thoughts are shown."""

    @property
    def omitted(self) -> bool:
        return self.display == "omitted"


def template_kwargs(thinking: Thinking | None, messages: list[Message]) -> JsonObject:
    """Return what the templates of open models with a choice ask for.

    `enable_thinking` is what most of them know, `thinking_budget` is Seed-OSS's.
    """
    if thinking is None:
        return {}
    match thinking.type:
        case "disabled":
            return {"enable_thinking": False}
        case "between_tools":
            return {"enable_thinking": bool(messages) and messages[-1].role == "tool"}
        case _ if thinking.budget_tokens is None:
            return {"enable_thinking": True}
        case _:
            return {"enable_thinking": True, "thinking_budget": thinking.budget_tokens}


def seal(thought: str) -> str:
    """Return a signature that holds the thought, so that it is not lost to later turns."""
    return _SEAL + base64.b64encode(thought.encode()).decode()


def sealed_thought(signature: str | None) -> str:
    """Return the thought in a signature; none is in those of other servers."""
    if signature is None or not signature.startswith(_SEAL):
        return ""
    try:
        return base64.b64decode(signature[len(_SEAL) :], validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
