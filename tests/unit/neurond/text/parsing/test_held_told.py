"""Held calls are told while they are written; there the grammar lets nothing else through."""
# ruff: noqa: RUF001 - DeepSeek's markers have bars of full width

import pytest

from cortex_core.canonical import ResponseFormat
from cortex_core.neuron_api import ReasoningParserName, ToolParserName
from neurond.text.parsing.families import CALL_FORMATS
from neurond.text.parsing.parser import NOT_HELD
from neurond.text.parsing.segments import CallArguments, CallEnded
from tests.fakes.transcripts import BrokenCall
from tests.unit.neurond.text.parsing.held_families import (
    ALL,
    SEARCH,
    STRICT,
    Family,
    begins_with,
    parse,
    prompt,
    special_texts,
)

IN_PROSE: dict[ToolParserName, str] = {"phi": "<|tool_call|>[", "llama": '{"name": "'}
BEGINS_OF_OTHERS = (
    *("Well. ", "[", "{", "<tool_call>", "```json\n{", "functools[{", "<think>a</think>{"),
    *('{"n": "<function=say><parameter=it>', "<think>a functools[", "<think>a <function=say>"),
)


@pytest.mark.parametrize("tools", ALL)
@pytest.mark.parametrize("reasoning", ["none", "think"])
@pytest.mark.parametrize("mode", ["auto", "required", "json"])
def test_what_is_told_as_a_held_call_is_one(
    family: Family, tools: ToolParserName, reasoning: ReasoningParserName, mode: str
) -> None:
    answers = family.answers(tools, reasoning)
    asked = prompt("required" if mode == "required" else "auto", STRICT, SEARCH)
    held = answers.held_calls(asked, [])
    if mode == "json":
        held = answers.held_json(asked, [], ResponseFormat("json_object"))
    assert held is not None
    calls = CALL_FORMATS.get(tools)
    opener = calls.openers[0] if calls is not None else "<|channel|>"
    opens = IN_PROSE.get(tools, opener)
    for seed, begins in enumerate((opens, f"Well. {opens}", *BEGINS_OF_OTHERS)):
        form = ResponseFormat("grammar", text=held.grammar)
        if not begins_with(family.speller.compile(form), family.ids(begins)):
            continue
        tokens = family.walk(answers, held, seed, begins=begins)
        if tokens is None:
            continue
        segments = parse(answers, asked, tokens, held.calls)
        assert not [each for each in segments if isinstance(each, BrokenCall)], segments
        assert segments == parse(answers, asked, tokens)


@pytest.mark.parametrize("tools", ["hermes", "mistral", "kimi", "deepseek_v31", "harmony"])
@pytest.mark.parametrize("mode", ["auto", "required"])
def test_a_held_call_is_told_while_it_is_written(
    family: Family, tools: ToolParserName, mode: str
) -> None:
    call = {
        "hermes": '<tool_call>\n{"name": "say", "arguments": ',
        "mistral": "[TOOL_CALLS]say[ARGS]",
        "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.say:0"
        "<|tool_call_argument_begin|>",
        "deepseek_v31": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>say<｜tool▁sep｜>",
        "harmony": "<|channel|>commentary to=functions.say <|constrain|>json<|message|>",
    }[tools]
    answers, asked = family.answers(tools), prompt(mode, STRICT)
    held = answers.held_calls(asked, [])
    assert held is not None
    is_held = tools != "mistral" or mode == "required" or "[TOOL_CALLS]" in special_texts(family)
    for where in (held.calls, NOT_HELD):
        made = answers.parser(asked, where, thinks=False, keep_blanks=False)
        assert made is not None
        told_early = made.push(f'{call}{{"it": "abc')
        assert bool(told_early) is (is_held and where is held.calls)
        rest = made.push('"}')
        assert CallEnded(is_whole=True) in rest
        assert CallArguments('"}') in rest or not told_early


def test_of_calls_that_are_not_held_none_is_told_early(family: Family) -> None:
    answers, asked = family.answers("json", "think"), prompt("auto", STRICT)
    held = answers.held_calls(asked, [])
    assert held is not None
    body = '{"name": "say", "arguments": {"it": "a'
    for text in (f"```json\n{body}", f"<think>Hm.</think>{body}"):
        made = answers.parser(asked, held.calls, thinks=False, keep_blanks=False)
        assert made is not None
        assert not [each for each in made.push(text) if isinstance(each, CallArguments)]
    made = answers.parser(asked, held.calls, thinks=False, keep_blanks=False)
    assert made is not None
    assert made.push(body)
