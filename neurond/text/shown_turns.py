"""Which turns a chat template shows: many drop or move some and say nothing. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cortex_core.canonical import JsonObject
from neurond.text.call_forms import with_single_calls, with_text_before_calls
from neurond.text.messages import TemplateMessage, with_text_arguments

Render = Callable[[list[TemplateMessage], list[JsonObject] | None], str]

TOOLS: Final[list[JsonObject]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Looks.",
            "parameters": {
                "type": "object",
                "properties": {"what": {"type": "string", "description": "What."}},
                "required": ["what"],
            },
        },
    }
    for name in ("look", "seek")
]


@dataclass(frozen=True, slots=True)
class ShownTurns:
    """What becomes of turns, where the template does not refuse them."""

    leading_system: bool = True
    """A system turn in front is shown."""
    several_systems: bool = True
    """Further system turns are shown as well, where they stand."""
    calls: bool = True
    """Calls in turns of their own make a difference."""
    results: bool = True
    """Results are shown, whatever stands before them."""
    several_calls: bool = True
    """All calls of a turn are shown, and their results; if not, each in a turn of its own is."""
    text_beside_calls: bool = True
    """So is the text of a turn that calls; if not, it is in a turn of its own before."""


ALL_SHOWN: Final = ShownTurns()


def shown_turns(render: Render) -> ShownTurns:
    """Try a template with short conversations.

    Args:
        render: renders messages, with the tools that it is told of; may raise whatever Python can.
            What raises is taken as shown: it raises again when it matters. But one call in a turn
            is the least that there is, so that has to succeed.
    """
    return ShownTurns(
        leading_system=all(_keeps(render, turns) for turns in (SYSTEM, SYSTEM_BEFORE_RESULT)),
        several_systems=all(_keeps(render, turns) for turns in SYSTEMS),
        calls=_reads_calls(render),
        results=_shows(render, RESULT, RESULT) is True,
        several_calls=_is_best(render, SEVERAL_CALLS, with_single_calls),
        text_beside_calls=_is_best(render, TEXT_BESIDE_CALLS, with_text_before_calls),
    )


def _reads_calls(render: Render) -> bool:
    plain = [{key: turn[key] for key in turn if key != "tool_calls"} for turn in ONE_CALL]
    without = _rendered(render, plain)
    ways = (_rendered(render, way) for way in (ONE_CALL, with_text_arguments(ONE_CALL)))
    return any(way not in (None, without) for way in ways)


def _is_best(
    render: Render,
    messages: list[TemplateMessage],
    form: Callable[[list[TemplateMessage]], list[TemplateMessage]],
) -> bool:
    """Tell whether the form of a conversation would show no more of it."""
    if _shows(render, messages, messages) is not False:
        return True
    return not _shows(render, form(messages), messages)


def _shows(
    render: Render, form: list[TemplateMessage], messages: list[TemplateMessage]
) -> bool | None:
    """Tell whether nothing of `messages` is lost in a form of them; None where it raises.

    Where it stands is the template's, as some have their own order of texts, calls and results.
    """
    text = _rendered(render, form)
    if text is None:
        return None
    return all(content in text for message in messages for content in _contents(message))


def _contents(message: TemplateMessage) -> list[str]:
    arguments = [call["function"]["arguments"] for call in message.get("tool_calls", ())]
    return [message["content"], *(each["what"] for each in arguments)]


def _rendered(
    render: Render, messages: list[TemplateMessage], tools: list[JsonObject] | None = TOOLS
) -> str | None:
    try:
        return render(messages, tools)
    except Exception:  # noqa: BLE001 - a template can raise whatever Python can
        return None


def _keeps(render: Render, messages: list[TemplateMessage]) -> bool:
    """Tell whether turns without calls are shown in order, or the template raises."""
    text = _rendered(render, messages, None)
    if text is None:
        return True
    at = 0
    for message in messages:
        # Thoughts have marks around them at times; what becomes of results is told elsewhere.
        if message["role"] in ("assistant", "tool"):
            continue
        at = text.find(message["content"], at)
        if at < 0:
            return False
    return True


def _turns(*roles: str) -> list[TemplateMessage]:
    return [
        {"role": role, "content": f"turn {number} is the {role}'s"}
        for number, role in enumerate(roles)
    ]


def _calling(text: str, *numbers: int) -> list[TemplateMessage]:
    """Return a turn with calls, and their results."""
    calls = [
        {
            "id": f"call{number:05}",
            "type": "function",
            "function": {
                "name": TOOLS[number % 2]["function"]["name"],
                "arguments": {"what": f"asked for {number}"},
            },
        }
        for number in numbers
    ]
    return [
        {"role": "assistant", "content": text, "tool_calls": calls},
        *(_result(number) for number in numbers),
    ]


def _result(number: int) -> TemplateMessage:
    return {
        "role": "tool",
        "content": f"told of {number}",
        "tool_call_id": f"call{number:05}",
    }


SYSTEM: Final = _turns("system", "user")
SYSTEM_BEFORE_RESULT: Final = [*_turns("system", "user"), *_calling("", 1)]
"""Some of Mistral's show it in the last turn, where that is the user's."""
SYSTEMS: Final[Sequence[list[TemplateMessage]]] = (
    _turns("system", "system", "user"),
    _turns("system", "user", "assistant", "system", "user"),
)
"""As codex asks, and as Claude Code does."""
ONE_CALL: Final = [*_turns("user"), *_calling("", 1), *_calling("", 2)]
RESULT: Final = [*_turns("user"), {"role": "assistant", "content": "saying so"}, _result(1)]
SEVERAL_CALLS: Final = [*_turns("user"), *_calling("", 1, 2), *_calling("", 3, 4)]
TEXT_BESIDE_CALLS: Final = [
    *_turns("user"),
    *_calling("saying this", 1),
    *_calling("saying that", 2),
]
