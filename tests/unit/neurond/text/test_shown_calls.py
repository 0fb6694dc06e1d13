"""Calls, their results and the text beside them, with templates that lose some of it silently."""

import pytest

from cortex_core.canonical import ChatPrompt, Message, TextPart, Tool, ToolCallPart, ToolResultPart
from cortex_core.neuron_api import ToolParserName
from neurond.text.template import ChatTemplate

TOOLS = (Tool("look", "Looks.", {"type": "object", "properties": {}}),)
_CALL = "({{ c.function.name }} {{ c.function.arguments | tojson }})"
_TURN = "[{{ m.role }}]{{ m.content }}"
_CALLS = "{% for c in m.tool_calls or [] %}" + _CALL + "{% endfor %}"
SHOWS_ALL = "{% for m in messages %}" + _TURN + _CALLS + "{% endfor %}{{ tools and '' }}"
FIRST_CALL_ONLY = (
    "{% for m in messages %}"
    + _TURN
    + "{% for c in (m.tool_calls or [])[:1] %}"
    + _CALL
    + "{% endfor %}{% endfor %}{{ tools and '' }}"
)
"""As gpt-oss' template."""
CALLS_OR_TEXT = (
    "{% for m in messages %}{% if m.tool_calls %}[{{ m.role }}]"
    + _CALLS
    + "{% else %}"
    + _TURN
    + "{% endif %}{% endfor %}{{ tools and '' }}"
)
"""As Llama's and Hermes'."""
CALLS_OR_TEXT_OR_REFUSAL = (
    "{% set ns = namespace(user=true) %}{% for m in messages %}"
    "{% if m.role != 'tool' and not m.tool_calls %}{% if (m.role == 'user') != ns.user %}"
    "{{ raise_exception('must alternate') }}{% endif %}{% set ns.user = not ns.user %}{% endif %}"
    "{% endfor %}" + CALLS_OR_TEXT
)
"""As Mistral's, to which a text before a call is a turn too many."""
TEXT_BEHIND_RESULTS = (
    "{% set ns = namespace(said='') %}{% for m in messages %}"
    "{% if m.tool_calls %}[{{ m.role }}]"
    + _CALLS
    + "{% set ns.said = m.content %}{% else %}"
    + _TURN
    + "{{ ns.said }}{% set ns.said = '' %}{% endif %}{% endfor %}{{ tools and '' }}"
)
"""As Gemma 4's."""
NO_CALLS = "{% for m in messages %}" + _TURN + "{% endfor %}{{ tools and '' }}"
"""As Granite 3.3's and LFM2's."""
NO_RESULTS_EITHER = (
    "{% for m in messages if m.role != 'tool' %}" + _TURN + "{% endfor %}{{ tools and '' }}"
)
FAILS_OVER_CALLS = (
    "{% for m in messages %}{{ m.tool_calls.append(1) if m.tool_calls else '' }}"
    + _TURN
    + "{% endfor %}{{ tools and '' }}"
)
"""As a copy of Kimi K2's."""


def say(role: str, text: str) -> Message:
    return Message(role, (TextPart(text),))  # type: ignore[arg-type]


def call(text: str, *ids: str) -> Message:
    calls = tuple(ToolCallPart(id_, f"f{id_}", f'{{"n": {id_}}}') for id_ in ids)
    return Message("assistant", ((TextPart(text),) if text else ()) + calls)


def tell(id_: str) -> Message:
    return Message("tool", (ToolResultPart(id_, (TextPart(f"r{id_}"),)),))


TURNS = (say("user", "a"), call("Both.", "1", "2"), tell("1"), tell("2"), say("user", "b"))


def render(source: str, *messages: Message, parser: ToolParserName = "hermes") -> str:
    template = ChatTemplate(source, model="m", special_tokens={})
    return template.render(ChatPrompt(messages, tools=TOOLS), tool_parser=parser).text


def test_what_a_template_shows_stays_as_it_is() -> None:
    assert render(SHOWS_ALL, *TURNS) == (
        '[user]a[assistant]Both.(f1 {"n": 1})(f2 {"n": 2})[tool]r1[tool]r2[user]b'
    )


def test_calls_that_a_template_loses_are_in_turns_of_their_own() -> None:
    assert render(FIRST_CALL_ONLY, *TURNS) == (
        '[user]a[assistant]Both.(f1 {"n": 1})[tool]r1[assistant](f2 {"n": 2})[tool]r2[user]b'
    )


def test_text_that_a_template_loses_is_a_turn_before_the_calls() -> None:
    assert render(CALLS_OR_TEXT, *TURNS) == (
        '[user]a[assistant]Both.[assistant](f1 {"n": 1})(f2 {"n": 2})[tool]r1[tool]r2[user]b'
    )
    alone = say("user", "a"), call("", "1"), tell("1")
    assert render(CALLS_OR_TEXT, *alone) == '[user]a[assistant](f1 {"n": 1})[tool]r1'


def test_a_form_that_a_template_refuses_later_is_not_begun_with() -> None:
    """Else the front of the prompt would change while an agent works."""
    first = say("user", "a"), call("One.", "1"), tell("1")
    begins = render(CALLS_OR_TEXT_OR_REFUSAL, *first)
    goes_on = render(CALLS_OR_TEXT_OR_REFUSAL, *first, call("Two.", "2"), tell("2"))
    assert begins == '[user]a[assistant](f1 {"n": 1})[tool]r1'
    assert goes_on == begins + '[assistant](f2 {"n": 2})[tool]r2'


def test_an_order_of_its_own_is_the_templates() -> None:
    shown = render(TEXT_BEHIND_RESULTS, *TURNS[:3])
    assert shown == '[user]a[assistant](f1 {"n": 1})(f2 {"n": 2})[tool]r1Both.'


@pytest.mark.parametrize("source", [NO_CALLS, FAILS_OVER_CALLS])
def test_calls_that_a_template_never_shows_are_text_as_the_parser_reads_it(source: str) -> None:
    assert render(source, *TURNS[:3], parser="granite") == (
        '[user]a[assistant]Both.\n<|tool_call|>[{"name": "f1", "arguments": {"n": 1}}, '
        '{"name": "f2", "arguments": {"n": 2}}][tool]r1'
    )
    assert render(source, *TURNS[:3], parser="kimi") == (
        "[user]a[assistant]Both.<|tool_calls_section_begin|>"
        '<|tool_call_begin|>functions.f1:0<|tool_call_argument_begin|>{"n": 1}<|tool_call_end|>'
        '<|tool_call_begin|>functions.f2:0<|tool_call_argument_begin|>{"n": 2}<|tool_call_end|>'
        "<|tool_calls_section_end|>[tool]r1"
    )


def test_results_that_a_template_never_shows_are_the_users() -> None:
    assert render(NO_RESULTS_EITHER, *TURNS[:2], tell("1"), say("user", "b")).endswith(
        "[user]<tool_response>\nr1\n</tool_response>[user]b"
    )
