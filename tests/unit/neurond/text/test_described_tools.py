"""Tools in front of a template that knows of none."""

from cortex_core.canonical import (
    ChatPrompt,
    Message,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from cortex_core.neuron_api import ToolParserName
from neurond.text.template import ChatTemplate

SOURCE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + SOURCE
)
WEATHER = Tool("weather", "Tells it.", {"type": "object", "properties": {"city": {}}})


def render(
    source: str, *messages: Message, mode: str = "auto", parser: ToolParserName = "json"
) -> str:
    template = ChatTemplate(source, model="m", special_tokens={})
    choice = ToolChoice(mode)  # type: ignore[arg-type]
    prompt = ChatPrompt(messages, tools=(WEATHER,), tool_choice=choice)
    return template.render(prompt, tool_parser=parser).text


def say(role: str, text: str) -> Message:
    return Message(role, (TextPart(text),))  # type: ignore[arg-type]


def test_tools_are_described_behind_the_system_message() -> None:
    text = render(SOURCE, say("system", "Be kind."), say("user", "Hi"))
    assert text.startswith("[system]Be kind.\n\n# Tools")
    assert '"name": "weather"' in text
    assert "<tool_call>" in text
    assert text.endswith("[user]Hi")


def test_tools_are_described_where_there_is_no_system_message() -> None:
    assert render(SOURCE, say("user", "Hi")).startswith("[system]# Tools")
    assert render(NO_SYSTEM, say("user", "Hi")).startswith("[user]# Tools")


def test_earlier_calls_and_results_are_text() -> None:
    calling = Message("assistant", (TextPart("Wait."), ToolCallPart("c", "weather", '{"city": 1}')))
    result = Message("tool", (ToolResultPart("c", (TextPart("rain"),)),))
    text = render(SOURCE, say("user", "?"), calling, result)
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": 1}}\n</tool_call>'
    assert f"[assistant]Wait.\n{call}[user]<tool_response>\nrain\n</tool_response>" in text


def test_nothing_is_described_where_no_tool_may_be_called() -> None:
    assert render(SOURCE, say("user", "Hi"), mode="none") == "[user]Hi"
    assert render(SOURCE, say("user", "Hi"), parser="none") == "[user]Hi"
