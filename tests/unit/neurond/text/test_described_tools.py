"""Tools in front of a template that knows of none."""
# ruff: noqa: RUF001 - DeepSeek's markers have bars of full width

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
PHI_4_MINI = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + "
    "'<|/tool|>' + '<|end|>' }}"
    "{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
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


CALLING = Message("assistant", (TextPart("Wait."), ToolCallPart("c", "weather", '{"city": 1}')))
RESULT = Message("tool", (ToolResultPart("c", (TextPart("rain"),)),))


def test_deepseek_is_told_in_the_words_of_its_model_card() -> None:
    text = render(
        SOURCE, say("system", "Be kind."), say("user", "?"), CALLING, RESULT, parser="deepseek_v31"
    )
    head, _, turns = text.partition("[user]")
    assert head.startswith(
        "[system]Be kind.\n\n## Tools\nYou have access to the following tools:\n\n### weather\n"
        'Description: Tells it.\n\nParameters: {"type": "object", "properties": {"city": {}}}\n\n'
        "IMPORTANT: ALWAYS adhere to this exact format for tool use:\n<｜tool▁calls▁begin｜>"
    )
    assert turns == (
        "?[assistant]Wait.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>"
        '{"city": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>[tool]rain'
    )


def test_phi_gets_its_tools_in_the_system_turn() -> None:
    told = (
        '<|tool|>[{"name": "weather", "description": "Tells it.", '
        '"parameters": {"type": "object", "properties": {"city": {}}}}]<|/tool|><|end|>'
    )
    turns = say("user", "?"), CALLING, RESULT
    assert render(PHI_4_MINI, say("system", "Be kind."), *turns, parser="phi") == (
        f"<|system|>Be kind.{told}<|user|>?<|end|><|assistant|>Wait.\n"
        '<|tool_call|>[{"name": "weather", "arguments": {"city": 1}}]<|/tool_call|><|end|>'
        "<|tool_response|>rain<|end|><|assistant|>"
    )
    without = render(PHI_4_MINI, *turns, parser="phi")
    assert without.startswith(f"<|system|>You are a helpful assistant with some tools.{told}")
    assert "<|tool|>" not in render(PHI_4_MINI, *turns, parser="phi", mode="none")


def test_the_form_that_a_profile_names_is_described() -> None:
    text = render(SOURCE, say("user", "?"), CALLING, RESULT, parser="granite")
    form = '<|tool_call|>[{"name": "<function name>", "arguments": {"<argument>": "<value>"}}]'
    assert f"in this form:\n{form}[user]?" in text
    assert '<|tool_call|>[{"name": "weather", "arguments": {"city": 1}}][user]<tool_re' in text
