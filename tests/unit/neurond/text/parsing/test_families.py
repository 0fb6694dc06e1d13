"""Which format a model writes in, told by its template and its tokenizer."""
# ruff: noqa: RUF001 - DeepSeek's markers have bars of full width

import pytest

from neurond.text.parsing.families import Parsers, recognised

QWEN = '{% if tools %}<tool_call>\n{"name": …}\n</tool_call>{% endif %}'


@pytest.mark.parametrize(
    ("template", "added", "expected"),
    [
        (QWEN, (), Parsers("hermes", "none")),
        (f"{QWEN}{{% set c = m.content.split('</think>') %}}", (), Parsers("hermes", "think")),
        (f"{QWEN}<function=f><parameter=p>", (), Parsers("qwen3_coder", "none")),
        (f"{QWEN}<arg_key>", ("<think>", "</think>"), Parsers("glm", "think")),
        ("[TOOL_CALLS]", (), Parsers("mistral", "none")),
        ("[TOOL_CALLS]", ("[THINK]", "[/THINK]"), Parsers("mistral", "mistral")),
        ("<|start|>{{ tools }}<|channel|>", (), Parsers("harmony", "harmony")),
        ("<｜tool▁calls▁begin｜>```json", ("</think>",), Parsers("deepseek_v3", "think")),
        ("<｜tool▁calls▁begin｜>", (), Parsers("deepseek_v31", "none")),
        ("<|tool_calls_section_begin|>", (), Parsers("kimi", "none")),
        ("<|tool_call>call:<|channel>", (), Parsers("gemma4", "gemma4")),
        ("<start_function_call>", (), Parsers("functiongemma", "none")),
        ("<|tool_call|>", (), Parsers("phi", "none")),
        ("<|start_of_role|><|tool_call|>", (), Parsers("granite", "none")),
        ("{{ tools }}", ("<|python_tag|>",), Parsers("llama", "none")),
        ("[func_name1(params)]", ("<|python_tag|>",), Parsers("pythonic", "none")),
        ("{{ tools }}", (), Parsers("json", "none")),
        (f"{QWEN}</think>", ("[TOOL_CALLS]", "[THINK]"), Parsers("hermes", "think")),
    ],
)
def test_a_template_tells(template: str, added: tuple[str, ...], expected: Parsers) -> None:
    assert recognised(template, added, knows_tools=True) == expected


def test_a_template_that_knows_no_tools_gets_the_general_format() -> None:
    assert recognised("…", ("<tool_call>",), knows_tools=False) == Parsers("json", "none")
    assert recognised("<｜tool▁calls▁begin｜>```json", (), knows_tools=False).tools == "json"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "{% for tool in message['tool_calls'] %}<｜tool▁calls▁begin｜>{{ tool }}{% endfor %}",
            "deepseek_v31",
        ),
        ("<|tool|>{{ message['tools'] }}<|/tool|>", "phi"),
    ],
)
def test_a_family_that_is_told_of_tools_in_words_writes_its_own_calls(
    template: str, expected: str
) -> None:
    assert recognised(template, ("<tool_call>",), knows_tools=False).tools == expected


def test_the_profile_goes_before() -> None:
    parsers = recognised(QWEN, (), knows_tools=True, tools="none", reasoning="think")
    assert parsers == Parsers("none", "think")
