"""Chat templates: what they are given, what they may do, and how their failures read."""

from datetime import UTC, datetime

import pytest

from cortex_core.canonical import (
    ChatPrompt,
    MediaPart,
    Message,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from cortex_core.errors import InternalError, InvalidRequest, WrongModality
from neurond.text.message_forms import forms
from neurond.text.messages import template_messages
from neurond.text.template import ChatTemplate, check_template

ROLES = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
STRICT = (
    "{% for m in messages %}"
    "{% if m.role == 'system' and not loop.first %}{{ raise_exception('system first') }}{% endif %}"
    "{% if not loop.first and m.role == loop.previtem.role %}"
    "{{ raise_exception('roles alternate') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}"
)
_TURNS = "{% for m in turns %}[{{ m.role }}]{{ m.content }}{% endfor %}"
FIRST_SYSTEM_ONLY = (
    "{% if messages[0].role == 'system' %}[system]{{ messages[0].content }}{% endif %}"
    "{% set turns = messages | rejectattr('role', 'equalto', 'system') | list %}" + _TURNS
)
LAST_SYSTEM_ONLY = (
    "{% set ns = namespace(system='') %}{% for m in messages if m.role == 'system' %}"
    "{% set ns.system = m.content %}{% endfor %}[system]{{ ns.system }}"
    "{% set turns = messages | rejectattr('role', 'equalto', 'system') | list %}" + _TURNS
)
SYSTEMS_IN_FRONT = (
    "[system]{{ messages | selectattr('role', 'equalto', 'system') "
    "| map(attribute='content') | join('|') }}"
    "{% set turns = messages | rejectattr('role', 'equalto', 'system') | list %}" + _TURNS
)
SYSTEM_IN_THE_LAST_TURN = (
    "{% for m in messages if m.role != 'system' %}[{{ m.role }}]"
    "{% if loop.last and m.role == 'user' and messages[0].role == 'system' %}"
    "{{ messages[0].content }}|{% endif %}{{ m.content }}{% endfor %}"
)
SYSTEM_UNSEEN = (
    "{% set turns = messages | rejectattr('role', 'equalto', 'system') | list %}" + _TURNS
)
ALTERNATING_OUTSIDE_TOOLS = (
    "{% set ns = namespace(i=0) %}{% for m in messages %}"
    "{% if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}"
    "{% if (m.role == 'user') != (ns.i % 2 == 0) %}{{ raise_exception('must alternate') }}"
    "{% endif %}{% set ns.i = ns.i + 1 %}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}({{ c.id }}){% endfor %}"
    "{% endfor %}{{ tools or '' }}"
)
"""As Mistral's templates count turns."""
ONE_CALL = (
    "{% for m in messages %}{% if m.tool_calls and m.tool_calls | length != 1 %}"
    "{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}({{ c.id }}){% endfor %}"
    "{% endfor %}{{ tools or '' }}"
)
"""As Llama's templates take calls."""
ITEMS = (
    "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}({{ c.function.name }}"
    "{% for k, v in c.function.arguments | items %} {{ k }}={{ v }}{% endfor %}){% endfor %}"
    "{% endfor %}{{ tools or '' }}"
)
"""As Qwen3-Coder's and GLM's templates write arguments."""


def say(role: str, *texts: str) -> Message:
    return Message(role, tuple(TextPart(text) for text in texts))


def call(*ids: str, text: str = "", arguments: str = "{}") -> Message:
    parts = tuple(ToolCallPart(id_, f"f{id_}", arguments) for id_ in ids)
    return Message("assistant", ((TextPart(text),) if text else ()) + parts)


def tell(id_: str, text: str) -> Message:
    return Message("tool", (ToolResultPart(id_, (TextPart(text),)),))


def template(source: str) -> ChatTemplate:
    return ChatTemplate(
        source,
        model="m",
        special_tokens={"bos_token": "<s>"},
        now=lambda: datetime(2026, 2, 3, tzinfo=UTC),
    )


def render(source: str, *messages: Message, **options: object) -> str:
    return template(source).render(ChatPrompt(messages, **options)).text


def test_the_prompt_ends_where_the_answer_begins() -> None:
    assert render(ROLES, say("user", "hi")) == "[user]hi[assistant]"


def test_parts_of_a_turn_are_lines_and_developer_is_system() -> None:
    assert render(ROLES, say("developer", "a", "b"), say("user", "c")).startswith(
        "[system]a\nb[user]c"
    )


TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}<end>{% endfor %}"


@pytest.mark.parametrize("said", ["The answer is (", "A b ", " \n", "[assistant]", "<end>x"])
@pytest.mark.parametrize(
    "source", [TURNS + "{% if add_generation_prompt %}[new]{% endif %}", STRICT]
)
def test_a_turn_that_is_continued_ends_where_its_text_does(source: str, said: str) -> None:
    turns = [say("user", "hi"), say("assistant", said)]
    rendered = render(source, *turns, continue_final_message=True)
    shown = said.lstrip() if source is not STRICT else said
    assert rendered.partition("[assistant]")[2] == shown


def test_only_the_assistants_turn_is_continued_and_only_if_it_is_shown() -> None:
    with pytest.raises(InvalidRequest, match="it is not the assistant's"):
        render(TURNS, say("user", "hi"), continue_final_message=True)
    hides = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(InvalidRequest, match="chat template of m does not show it") as caught:
        render(hides, say("user", "hi"), say("assistant", "a"), continue_final_message=True)
    assert caught.value.param == "messages"


def test_whitespace_around_blocks_is_trimmed_as_in_transformers() -> None:
    source = "{% if true %}\nx\n    {% endif %}\ny"
    assert render(source, say("user", "hi")) == "x\ny"


def test_variables_and_functions_of_transformers_are_there() -> None:
    source = (
        "{{ bos_token }}{{ strftime_now('%d %b %Y') }}{{ {'k': '<é>'} | tojson }}"
        "{% for i in range(9) %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% endfor %}"
        "{% generation %}g{% endgeneration %}{{ enable_thinking }}{{ reasoning_effort }}"
    )
    text = render(
        source,
        say("user", "hi"),
        template_kwargs={"enable_thinking": False, "messages": []},
        reasoning_effort="low",
    )
    assert text == '<s>03 Feb 2026{"k": "<é>"}0gFalselow'


def test_documents_are_given_to_templates_that_read_them() -> None:
    source = "{% for d in documents or [] %}{{ d.title }};{% endfor %}"
    assert render(source, say("user", "hi")) == ""
    documents = [{"title": "one"}, {"title": "two"}]
    given = {"documents": documents}
    assert render(source, say("user", "hi"), template_kwargs=given) == "one;two;"


def test_tools_and_calls_come_as_templates_expect_them() -> None:
    source = (
        "{{ tools[0].function.name }}:{{ tools[0].function.parameters.type }};"
        "{% for m in messages %}{% for c in m.tool_calls or [] %}"
        "{{ c.function.name }}({{ c.function.arguments.city }}){% endfor %}"
        "{{ m.reasoning_content }}{% if m.role == 'tool' %}{{ m.tool_call_id }}={{ m.content }}"
        "{% endif %}{% endfor %}"
    )
    calling = Message(
        "assistant", (ReasoningPart("hm"), ToolCallPart("c1", "weather", '{"city": "Oslo"}'))
    )
    result = Message("tool", (ToolResultPart("c1", (TextPart("rain"),)),))
    text = render(source, say("user", "?"), calling, result, tools=(Tool("weather"),))
    assert text == "weather:object;weather(Oslo)hmc1=rain"


@pytest.mark.parametrize(
    ("told", "rendered"),
    [
        ("no such file", "Error: no such file"),
        ("Error: exit code 1", "Error: exit code 1"),
        ("", "Error"),
    ],
)
def test_a_tools_error_begins_with_that_word(told: str, rendered: str) -> None:
    source = "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools or '' }}"
    result = ToolResultPart("c1", (TextPart(told),) if told else (), is_error=True)
    assert render(source, Message("tool", (result,))) == rendered


@pytest.mark.parametrize("arguments", ["{oops", "[" * 2000 + "]" * 2000])
def test_arguments_that_cannot_be_read_reach_the_template_as_text(arguments: str) -> None:
    calling = Message("assistant", (ToolCallPart("c1", "f", arguments),))
    source = (
        "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.arguments }}{% endfor %}"
        "{% endfor %}{{ tools or '' }}"
    )
    assert render(source, calling) == arguments


@pytest.mark.parametrize("name", ["self", "args", "context", "documents"])
def test_a_variable_may_have_any_name(name: str) -> None:
    shown = render("{{ x }}", say("user", "?"), template_kwargs={name: 1, "x": 2})
    assert shown == "2"


def test_tool_choice_none_hides_the_tools() -> None:
    text = render(
        "{{ tools }}", say("user", "?"), tools=(Tool("f"),), tool_choice=ToolChoice("none")
    )
    assert text == "None"


def test_a_later_system_message_becomes_a_user_turn_where_it_must() -> None:
    messages = (say("system", "s"), say("user", "a"), say("system", "note"), say("user", "b"))
    assert render(STRICT, *messages) == "[system]s[user]a\n\nnote\n\nb"
    assert "[system]note" in render(ROLES, *messages)


@pytest.mark.parametrize("source", [FIRST_SYSTEM_ONLY, LAST_SYSTEM_ONLY, SYSTEMS_IN_FRONT])
def test_no_system_turn_is_lost_or_moved(source: str) -> None:
    """Many published templates take several and show one, or move all of them to the front."""
    claude_code = say("system", "s"), say("user", "a"), say("system", "note"), say("user", "b")
    assert render(source, *claude_code) == "[system]s[user]a\n\nnote\n\nb"
    codex = say("system", "s"), say("system", "rules"), say("user", "a"), say("user", "b")
    assert render(source, *codex) == "[system]s\n\nrules[user]a\n\nb"
    assert render(source, *claude_code[:2]) == "[system]s[user]a"


def test_a_system_turn_that_would_not_be_seen_goes_into_the_first_user_turn() -> None:
    turns = say("system", "s"), say("user", "a"), say("assistant", "b"), say("system", "note")
    assert render(SYSTEM_UNSEEN, *turns[:2]) == "[user]s\n\na"
    assert render(SYSTEM_UNSEEN, *turns) == "[user]s\n\na[assistant]b[user]note"


def test_a_system_turn_stays_when_a_result_comes_last() -> None:
    """Some of Mistral's templates show it in the last turn alone, and only in the user's."""
    turns = say("system", "s"), say("user", "a"), call("1"), tell("1", "r")
    assert render(SYSTEM_IN_THE_LAST_TURN, *turns[:2]) == "[user]s\n\na"
    assert render(SYSTEM_IN_THE_LAST_TURN, *turns).startswith("[user]s\n\na[assistant]")


def test_a_system_turn_alone_is_a_user_turn_where_it_would_not_be_seen() -> None:
    assert render(SYSTEM_UNSEEN, say("system", "s")) == "[user]s"
    assert render(NO_SYSTEM, say("system", "s")) == "[user]s"


def test_a_refusal_is_told_though_the_template_fails_otherwise() -> None:
    source = "{% if tools is not none %}{{ tools[0].name }}{% endif %}{{ raise_exception('no') }}"
    with pytest.raises(InvalidRequest, match="says in line 1: no"):
        render(source, say("user", "a"))


def test_a_template_is_checked_without_being_rendered() -> None:
    check_template(
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", model="m"
    )


def test_a_refusal_names_the_line() -> None:
    with pytest.raises(InvalidRequest, match=r"of m says in line 3: not this"):
        render("a\n\n{{ raise_exception('not this') }}", say("user", "a"))


def test_a_template_without_system_gets_it_in_the_first_user_turn() -> None:
    assert render(NO_SYSTEM, say("system", "s"), say("user", "a")) == "[user]s\n\na"


def test_text_behind_a_result_goes_with_it_where_it_is_one_turn_too_many() -> None:
    turns = (say("system", "s"), say("user", "a"), call("1"), tell("1", "r"), say("user", "note"))
    assert render(ALTERNATING_OUTSIDE_TOOLS, *turns[1:4]) == "[user]a[assistant](1)[tool]r"
    shown = "[system]s[user]a[assistant](1)[tool]r\n\nnote"
    assert render(ALTERNATING_OUTSIDE_TOOLS, *turns) == shown
    assert render(ROLES + "{{ tools or '' }}", *turns).endswith("[tool]r[user]note[assistant]")


def test_calls_of_one_turn_become_turns_of_their_own_where_they_must() -> None:
    turns = (
        say("user", "a"),
        call("1", "2", "3", text="Both."),
        tell("2", "r2"),
        tell("9", "r9"),
        tell("1", "r1"),
        say("user", "b"),
        call("4"),
        tell("4", "r4"),
    )
    assert render(ONE_CALL, *turns) == (
        "[user]a[assistant]Both.(1)[tool]r1[assistant](2)[tool]r2[assistant](3)[tool]r9"
        "[user]b[assistant](4)[tool]r4"
    )
    assert "Both.(1)(2)(3)[tool]r2" in render(ALTERNATING_OUTSIDE_TOOLS, *turns[:5])


def test_forms_of_refused_conversations_are_tried_once_each() -> None:
    messages = template_messages(ChatPrompt((say("user", "a"), say("assistant", "b"))))
    assert list(forms(messages)) == [messages]


@pytest.mark.parametrize("written", ["[1]", '{"a": "tru', '"x"', "3"])
def test_arguments_that_a_template_cannot_write_are_left_out(written: str) -> None:
    shown = render(ITEMS, call("1", arguments='{"a": 2}'), call("2", arguments=written))
    assert shown == "(f1 a=2)(f2)"


def test_a_failure_that_is_not_of_the_arguments_stays_one() -> None:
    with pytest.raises(InternalError, match="UndefinedError"):
        render(ITEMS + "{{ missing.key }}", call("1", arguments="[1]"))


def test_a_template_that_goes_through_tools_may_have_none() -> None:
    source = "{% for t in tools %}{{ t.function.name }}{% endfor %}" + ROLES
    assert render(source, say("user", "a")) == "[user]a[assistant]"


def test_a_template_that_refuses_such_arguments_gets_none() -> None:
    source = (
        "{% for m in messages %}{% for c in m.tool_calls %}"
        "{% if c.function.arguments is not mapping %}{{ raise_exception('a mapping, please') }}"
        "{% endif %}({{ c.function.arguments }}){% endfor %}{% endfor %}{{ tools or '' }}"
    )
    assert render(source, call("1", arguments='{"a": 2}'), call("2", arguments="{")) == (
        "({'a': 2})({})"
    )


def test_arguments_are_text_where_a_template_joins_them_to_text() -> None:
    source = (
        "{% for m in messages %}{% for c in m.tool_calls %}"
        "{{ c.function.name + ':' + c.function.arguments }};{% endfor %}{% endfor %}"
        "{{ tools or '' }}"
    )
    shown = render(source, call("1", arguments='{"a": "ä"}'), call("2", arguments="[1]"))
    assert shown == 'f1:{"a": "ä"};f2:[1];'


@pytest.mark.parametrize("name", ["range", "raise_exception", "strftime_now", "namespace"])
def test_a_variable_cannot_replace_a_function(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"chat_template_kwargs.{name}") as caught:
        render(ROLES, say("user", "a"), template_kwargs={name: 1})
    assert caught.value.param == f"chat_template_kwargs.{name}"


def test_a_refusal_is_the_clients_error_in_the_templates_words() -> None:
    with pytest.raises(InvalidRequest, match="no such thing") as caught:
        render("{{ raise_exception('no such thing') }}", say("user", "a"))
    assert caught.value.param == "messages"


def test_a_failure_names_template_and_line() -> None:
    with pytest.raises(InternalError, match="template of m fails in line 2: UndefinedError"):
        render("x\n{{ missing.key }}", say("user", "a"))


def test_an_invalid_template_names_its_line() -> None:
    with pytest.raises(InvalidRequest, match="chat template of m: line 2") as caught:
        check_template("a\n{% if %}", model="m")
    assert caught.value.param == "chat_template"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception.__globals__.keys() }}",
        "{% for i in range(10000000) %}{% endfor %}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(source: str) -> None:
    with pytest.raises(InternalError):
        render(source, say("user", "a"))


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (
            Message("user", (TextPart("see"), MediaPart("image", "image/png", b"x"))),
            "[0].content[1]",
        ),
        (
            Message("user", (MediaPart("file", "application/pdf", b"x", place="messages[7]"),)),
            "[7]",
        ),
        (
            Message("tool", (ToolResultPart("c", (MediaPart("image", url="http://x"),)),)),
            "[0].content[0]",
        ),
    ],
)
def test_media_are_refused_with_their_place(message: Message, param: str) -> None:
    with pytest.raises(WrongModality) as caught:
        render(ROLES, message)
    assert caught.value.param == f"messages{param}"


def test_ids_of_calls_are_shortened_for_templates_that_refuse_others() -> None:
    source = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}"
        "{% if c.id | length != 9 %}{{ raise_exception('9!') }}{% endif %}{{ c.id }};{% endfor %}"
        "{{ m.tool_call_id }}{% endfor %}{{ tools or '' }}"
    )
    calling = Message("assistant", (ToolCallPart("toolu_01A09q90qw90lq917835lq9", "f", "{}"),))
    result = Message("tool", (ToolResultPart("toolu_01A09q90qw90lq917835lq9", (TextPart("x"),)),))
    call, _, answered = render(source, calling, result).partition(";")
    assert call == answered
    assert call.isalnum()


@pytest.mark.parametrize(
    ("effort", "kwargs", "expected"),
    [
        (None, {}, "--"),
        ("high", {}, "TrueTrue"),
        ("none", {}, "FalseFalse"),
        ("high", {"enable_thinking": False}, "FalseFalse"),
        (None, {"enable_thinking": True}, "TrueTrue"),
    ],
)
def test_families_switches_of_thinking_follow_the_request(
    effort: str | None, kwargs: dict[str, bool], expected: str
) -> None:
    template = ChatTemplate(
        "{{ enable_thinking | default('-') }}{{ thinking | default('-') }}",
        model="m",
        special_tokens={},
    )
    prompt = ChatPrompt((say("user", "?"),), reasoning_effort=effort, template_kwargs=kwargs)
    assert template.render(prompt).text == expected


def test_earlier_thoughts_are_there_under_each_familys_name() -> None:
    source = "{% for m in messages %}{{ m.thinking }}|{{ m.reasoning_content }}{% endfor %}"
    assert render(source, Message("assistant", (ReasoningPart("hm"), TextPart("x")))) == "hm|hm"
    call = ToolCallPart("c", "f", "{}")
    both = Message("assistant", (ReasoningPart("hm"), TextPart("x"), call))
    assert render(f"{source}{{{{ tools or '' }}}}", both) == "|hm"
