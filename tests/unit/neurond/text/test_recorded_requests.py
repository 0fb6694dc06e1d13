"""Every text that a real client sends stands in the model's prompt, in its order."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cortex_core.canonical import ChatPrompt
from cortex_core.dialects.anthropic_turns import BILLING_LINE
from neurond.text.template import ChatTemplate
from tests.unit.cortex_core.dialects.fixture_files import fixture, names
from tests.unit.cortex_core.dialects.test_recorded_requests import decode

SOURCE = """
{%- for tool in tools or [] %}{{ tool.function.name }}: {{ tool.function.description }}
{% endfor %}
{%- for m in messages %}[{{ m.role }}]{{ m.content or '' }}
{%- for call in m.tool_calls or [] %}<{{ call.function.name }}
{%- for value in call.function.arguments.values() %} {{ value }}{% endfor %}>{% endfor %}
{% endfor %}"""
TURNS = ("system", "instructions", "messages", "input")
SAID = ("text", "content", "output")


def texts(value: Any, key: str) -> Iterator[str]:
    """Yield the texts of turns and the arguments of calls, by the members that hold them."""
    if isinstance(value, dict) and value.get("type") == "tool_use":
        yield from map(str, value["input"].values())
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, key)
    elif isinstance(value, str) and key == "arguments":
        yield from map(str, json.loads(value).values())
    elif isinstance(value, str) and key in (*SAID, *TURNS) and not value.startswith(BILLING_LINE):
        yield value


@pytest.mark.parametrize("name", names("recorded"))
def test_every_text_is_in_the_prompt_in_its_order(name: str) -> None:
    case = fixture("recorded", name)
    prompt = decode(case).request.prompt
    assert isinstance(prompt, ChatPrompt)
    rendered = ChatTemplate(SOURCE, model="m", special_tokens={}).render(prompt).text
    at = 0
    for tool in prompt.tools:
        at = place_of(f"{tool.name}: {tool.description}", rendered, at)
    said = [text for member in TURNS for text in texts(case["body"].get(member), member)]
    assert said
    for text in said:
        at = place_of(text, rendered, at)


def place_of(text: str, rendered: str, at: int) -> int:
    """Return where the text ends, behind `at`."""
    found = rendered.find(text, at)
    assert found >= 0, f"{text[:80]!r} is not in the prompt, behind {rendered[:at][-80:]!r}"
    return found + len(text)
