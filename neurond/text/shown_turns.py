"""Which turns a chat template shows: many drop or move a system turn and say nothing. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from neurond.text.messages import TemplateMessage

Render = Callable[[list[TemplateMessage]], str]

ONE: Final = ("system", "user")
SEVERAL: Final = (("system", "system", "user"), ("system", "user", "assistant", "system", "user"))
"""As codex asks, and as Claude Code does."""


@dataclass(frozen=True, slots=True)
class ShownTurns:
    """What becomes of system turns, where the template does not refuse them."""

    leading_system: bool = True
    """A system turn in front is shown."""
    several_systems: bool = True
    """Further system turns are shown as well, where they stand."""


ALL_SHOWN: Final = ShownTurns()


def shown_turns(render: Render) -> ShownTurns:
    """Try a template with short conversations.

    Args:
        render: renders messages; may raise whatever Python can. What raises is taken as shown: it
            raises again when it matters.
    """
    return ShownTurns(_shows(render, ONE), all(_shows(render, roles) for roles in SEVERAL))


def _shows(render: Render, roles: Sequence[str]) -> bool:
    contents = [f"turn {number} is the {role}'s" for number, role in enumerate(roles)]
    messages = [
        {"role": role, "content": content} for role, content in zip(roles, contents, strict=True)
    ]
    try:
        text = render(messages)
    except Exception:  # noqa: BLE001 - a template can raise whatever Python can
        return True
    at = 0
    for role, content in zip(roles, contents, strict=True):
        if role == "assistant":  # with the marks of thoughts around it, at times
            continue
        at = text.find(content, at)
        if at < 0:
            return False
    return True
