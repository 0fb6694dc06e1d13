"""Tools as a client sent them, and as templates read them."""

import pytest

from cortex_core.canonical import ChatPrompt, Message, TextPart, Tool
from neurond.text.template import ChatTemplate


def render(source: str, tool: Tool) -> str:
    template = ChatTemplate(source, model="m", special_tokens={})
    user = Message("user", (TextPart("a"),))
    return template.render(ChatPrompt((user,), tools=(tool,))).text


DESCRIBED = (
    "{% for t in tools %}{{ t.function.name + ' - ' + t.function.description }}("
    "{% for k, v in t.function.parameters.properties.items() %}{{ k + ':' + v.type }} "
    "{{- v.description + '.' }}{% endfor %}){% endfor %}"
)
"""As gpt-oss' and Hermes' templates read tools."""
AS_JSON = "{{ tools | tojson }}"


@pytest.mark.parametrize(
    ("parameters", "shown"),
    [
        (None, "f - ()"),
        ({"type": "object"}, "f - ()"),
        ({"type": "object", "properties": {"a": {"type": ["null", "string"]}}}, "f - (a:string.)"),
        (
            {"type": "object", "properties": {"a": {"type": "string", "description": None}}},
            "f - (a:string.)",
        ),
    ],
)
def test_a_template_is_told_what_a_client_left_out_of_tools(
    parameters: dict[str, object] | None, shown: str
) -> None:
    tool = Tool("f", None, parameters)
    assert render(DESCRIBED, tool) == shown


def test_tools_stay_as_they_came_where_a_template_can_write_them() -> None:
    parameters = {"type": "object"}
    shown = render(AS_JSON, Tool("f", None, parameters))
    assert shown == (
        '[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]'
    )


def test_inner_schemas_are_completed_too() -> None:
    source = (
        "{% macro kind(s) %}{{ s.type + s.description }}"
        "{% if s.type == 'array' %}{{ '[' + kind(s['items']) + ']' }}{% endif %}"
        "{% if s.properties %}{{ '{' }}{% for k, v in s.properties.items() %}{{ kind(v) }}"
        "{% endfor %}{{ '}' }}{% endif %}{% endmacro %}"
        "{{ kind(tools[0].function.parameters.properties.a) }}"
    )
    inner = {"type": "object", "properties": {"b": {"type": ["integer", "null"]}}}
    outer = {"type": "object", "properties": {"a": {"type": "array", "items": inner}}}
    shown = render(source, Tool("f", "d", outer))
    assert shown == "array[object{integer}]"
