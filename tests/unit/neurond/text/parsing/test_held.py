"""Answers held to calls: what the grammar of each family lets through, its parser reads."""
# ruff: noqa: RUF001 - DeepSeek's markers have bars of full width

import json
from pathlib import Path

import msgspec
import pytest

from cortex_core.canonical import ResponseFormat, Tool
from cortex_core.errors import InvalidRequest
from cortex_core.neuron_api import ToolParserName
from neurond.engine.grammar import GrammarCompiler, check_format
from neurond.text.parsing.answer_format import HeldForm
from neurond.text.parsing.segments import Call, Text
from tests.fakes.tokenizers_made import BOS
from tests.unit.neurond.text.parsing.held_families import (
    ALL,
    NOTHING,
    SAY,
    SEARCH,
    TAG_END,
    TOOLS,
    Family,
    check_calls,
    goes_through,
    parse,
    prompt,
    special_texts,
    takes,
)


@pytest.mark.parametrize("tools", ALL)
def test_a_required_call_is_one_of_the_tools(family: Family, tools: ToolParserName) -> None:
    answers, asked = family.answers(tools), prompt("required", *TOOLS)
    held = answers.held_calls(asked, [])
    assert held is not None
    names: set[str] = set()
    for seed in range(6):
        tokens = family.walk(answers, held, seed)
        if tokens is None:
            continue
        segments = parse(answers, asked, tokens, held.calls)
        assert segments == parse(answers, asked, tokens)
        assert not [each for each in segments if isinstance(each, Text)], segments
        assert segments
        names |= set(check_calls(segments))
    assert names


@pytest.mark.parametrize("tools", ALL)
def test_a_named_call_takes_any_text_in_its_arguments(
    family: Family, tools: ToolParserName
) -> None:
    answers, asked = family.answers(tools), prompt("named", SAY, NOTHING, name="say")
    held = answers.held_calls(asked, [])
    assert held is not None
    spells = TAG_END if tools in ("qwen3_coder", "seed") else ""
    found = [
        check_calls(parse(answers, asked, tokens))
        for seed in range(4)
        if (tokens := family.walk(answers, held, seed, spells=spells)) is not None
    ]
    assert found
    assert all(names == ["say"] for names in found)


@pytest.mark.parametrize("tools", ALL)
def test_a_grammar_can_be_tried_out_without_the_models_tokens(
    family: Family, tools: ToolParserName
) -> None:
    for mode in ("required", "auto"):
        asked = prompt(mode, Tool("say", None, SAY.parameters, strict=True), SEARCH)
        held = family.answers(tools, "think").held_calls(asked, family.ids("<think>"))
        assert held is not None
        trial = json.dumps({"kind": "grammar", "text": held.trial}).encode()
        check_format(trial)


@pytest.mark.parametrize("tools", ["hermes", "mistral", "deepseek_v31", "harmony", "llama"])
def test_strict_tools_hold_calls_and_let_prose_be(family: Family, tools: ToolParserName) -> None:
    strict = Tool("say", None, SAY.parameters, strict=True)
    answers, asked = family.answers(tools), prompt("auto", strict)
    held = answers.held_calls(asked, [])
    assert held is not None
    call = {
        "hermes": '<tool_call>\n{"name": "say", "arguments": ',
        "mistral": "[TOOL_CALLS]say[ARGS]"
        if "[ARGS]" in special_texts(family)
        else '[TOOL_CALLS] [{"name": "say", "arguments": ',
        "deepseek_v31": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>say<｜tool▁sep｜>",
        "harmony": "<|channel|>commentary to=functions.say <|constrain|>json<|message|>",
        "llama": '{"name": "say", "parameters": ',
    }[tools]
    prose = "<|channel|>final<|message|>" if tools == "harmony" else "Well. "
    grammar = family.speller.compile(ResponseFormat("grammar", text=held.grammar))
    for token in family.ids(f"{prose}Hi <b>"):
        assert token in family.speller.allowed(grammar)
        grammar.advance(token)
    assert family.speller.end in family.speller.allowed(grammar)
    before = "" if tools in ("harmony", "llama") else prose
    grammar = family.speller.compile(ResponseFormat("grammar", text=held.grammar))
    for token in family.ids(f"{before}{call}"):
        assert token in family.speller.allowed(grammar)
        grammar.advance(token)
    allowed = family.speller.allowed(grammar)
    assert family.speller.end not in allowed
    assert {family.speller.pieces.piece(token) for token in allowed} <= {
        b"{",
        b" ",
        b"\n",
        b"\t",
        b"\r",
        b"\n\n",
    }


def test_thoughts_that_the_prompt_has_begun_come_before_the_call(family: Family) -> None:
    answers, asked = family.answers("hermes", "think"), prompt("named", NOTHING, name="nothing")
    ids = family.ids("Hi.<think>\n")
    held = answers.held_calls(asked, ids)
    assert held is not None
    assert answers.opens_thoughts(ids)
    said = family.ids(
        'Hm.\n</think>\n\n<tool_call>\n{"name": "nothing", "arguments": {}}\n</tool_call>'
    )
    grammar = family.speller.compile(ResponseFormat("grammar", text=held.grammar))
    for token in said:
        assert token in family.speller.allowed(grammar)
        grammar.advance(token)
    assert grammar.is_complete
    assert check_calls(parse(answers, asked, said, thinks=True)) == ["nothing"]


def test_calls_are_not_required_of_a_model_whose_calls_are_not_read(family: Family) -> None:
    answers = family.answers("none")
    with pytest.raises(InvalidRequest, match="tool_parser"):
        answers.held_calls(prompt("required", SAY), [])
    assert answers.held_calls(prompt("auto", SAY), []) is None
    assert answers.held_calls(prompt("none", SAY), []) is None


def test_nothing_is_held_and_nothing_parsed_where_nothing_is_to_be_told_apart(
    family: Family,
) -> None:
    answers = family.answers("hermes")
    assert answers.held_calls(prompt("none", SAY), []) is None
    assert answers.parser(prompt("none", SAY), thinks=False, keep_blanks=False) is None
    assert answers.parser(prompt("auto"), thinks=False, keep_blanks=False) is None


@pytest.mark.parametrize(
    ("text", "in_llama", "in_pythonic"),
    [
        ("\n\nHi", True, True),
        ("[1] says so.", True, False),
        ("[see](there)", True, False),
        ('{"answer": 1}', True, True),
        ('{"name": "say", "parameters": {"it": "a"}}', True, True),
        ('{"name": "say", "parameters": {"it": 1}}', False, True),
        (' [{"name": "say", "parameters": {"it": 1}}]', False, False),
        ('[say(it="a")]', False, True),
        ("[say(it=1)]", False, False),
    ],
)
def test_prose_is_what_no_call_without_a_marker_begins_with(
    family: Family, text: str, in_llama: bool, in_pythonic: bool
) -> None:
    asked = prompt("auto", Tool("say", None, SAY.parameters, strict=True))
    assert takes(family, family.answers("llama").held_calls(asked, []), text) is in_llama
    assert takes(family, family.answers("pythonic").held_calls(asked, []), text) is in_pythonic


@pytest.mark.parametrize("gap", ["", "\n"])
def test_a_call_is_held_with_and_without_a_line_end_behind_its_marker(
    family: Family, gap: str
) -> None:
    asked = prompt("auto", Tool("say", None, SAY.parameters, strict=True))
    held = family.answers("hermes").held_calls(asked, [])
    call = f'Well. <tool_call>{gap}{{"name": "say", "arguments": {{"it": "a"}}}}\n</tool_call>'
    assert takes(family, held, call)
    assert not takes(family, held, call.replace('"a"', "1"))


@pytest.mark.parametrize("tools", ALL)
@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_an_answer_is_calls_or_the_json_that_is_asked_for(
    family: Family, tools: ToolParserName, kind: str
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    final = (
        ResponseFormat("json_object")
        if kind == "json_object"
        else ResponseFormat("json_schema", schema=schema)
    )
    answers = family.answers(tools, "think")
    asked = prompt("auto", NOTHING, SAY)
    held = answers.held_json(asked, family.ids("Hi<think>\n"), final)
    assert held is not None
    check_format(json.dumps({"kind": "grammar", "text": held.trial}).encode())
    head = "<|channel|>final<|message|>" if tools == "harmony" else "Hm.</think>\n"
    assert takes(family, held, head + '{"n": 1}')
    assert not takes(family, held, head + "Well")
    assert not takes(family, held, f'{head}Well {{"n": 1}}')
    if kind == "json_schema":
        assert not takes(family, held, head + '{"n": "1"}')
    required = answers.held_calls(prompt("required", NOTHING), family.ids("Hi<think>\n"))
    assert required is not None
    tokens = family.walk(answers, required, 0, spells="</think>")
    assert tokens is not None
    said = family.tokenizer.decode(tokens, skip_special_tokens=False)
    assert takes(family, held, said), said


def test_json_may_come_behind_thoughts_of_a_model_without_calls(family: Family) -> None:
    answers = family.answers("none", "think")
    held = answers.held_json(prompt("auto", SAY), [], ResponseFormat("json_object"))
    assert takes(family, held, "<think>Hm.</think>\n\n{}")
    assert takes(family, held, "{}")
    done = family.ids("<think>\n\n</think>\n\n")
    assert answers.held_json(prompt("auto", SAY), done, ResponseFormat("json_object")) is None


@pytest.mark.parametrize(
    ("tools", "call"),
    [
        ("pythonic", '[any(a=1, b=["x"])]'),
        (
            "glm",
            "<tool_call>any\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
        ),
        ("qwen3_coder", '<tool_call>\n{"name": "any", "arguments": {"a": 1}}\n</tool_call>'),
    ],
)
def test_a_tool_of_any_arguments_gets_some(
    family: Family, tools: ToolParserName, call: str
) -> None:
    answers = family.answers(tools)
    asked = prompt("required", Tool("any", None, {"type": "object"}))
    assert takes(family, answers.held_calls(asked, []), call)
    [segment] = parse(answers, asked, family.ids(call))
    assert isinstance(segment, Call)
    assert json.loads(segment.arguments)["a"] == 1


@pytest.mark.parametrize("tools", ALL)
@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": {"a": {"type": "string"}}, "required": ["zz"]},
        {"properties": {"a": {"type": "string"}, "b": {"$ref": "#/properties/a"}}},
        {"properties": {"a": {}}, "allOf": [{"properties": {"b": {}}, "required": ["b"]}]},
    ],
)
def test_schemas_of_all_sorts_can_be_held(
    family: Family, tools: ToolParserName, parameters: dict[str, object]
) -> None:
    held = family.answers(tools).held_calls(prompt("required", Tool("t", None, parameters)), [])
    assert held is not None
    check_format(json.dumps({"kind": "grammar", "text": held.trial}).encode())


def test_text_or_null_can_be_null_in_gemmas_notation(family: Family) -> None:
    either = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    asked = prompt("required", Tool("t", None, {"properties": {"a": either}}))
    held = family.answers("functiongemma").held_calls(asked, [])
    for value in ("null", "<escape>null<escape>"):
        assert takes(family, held, f"<start_function_call>call:t{{a:{value}}}<end_function_call>")


def test_a_turn_that_goes_on_in_a_channel_is_held_from_its_middle(
    family: Family, tmp_path: Path
) -> None:
    # The family's own end token is one of harmony's markers; with it nothing would follow that.
    end = family.tokenizer.token_to_id(BOS)
    family.tokenizer.save(str(tmp_path / "tokenizer.json"))
    compiler = GrammarCompiler(tmp_path, family.speller.vocab_size, (end,))

    def takes(family: Family, held: HeldForm | None, text: str) -> bool:
        assert held is not None
        wanted = msgspec.json.encode(ResponseFormat("grammar", text=held.grammar))
        grammar = compiler.compile(wanted, ends=(end,), replayed=[])
        return goes_through(grammar, family.ids(text), end)

    answers = family.answers("harmony", "harmony")
    call = "<|channel|>commentary to=functions.say <|constrain|>json<|message|>" + '{"it": "a"}'
    strict = Tool("say", None, SAY.parameters, strict=True)
    asked = prompt("auto", strict, goes_on=True)
    held = answers.held_calls(asked, [])
    assert takes(family, held, "and so on.")
    assert takes(family, held, f"and so on.<|end|><|start|>assistant{call}")
    said = parse(answers, asked, family.ids(f"and so on.<|end|><|start|>assistant{call}"))
    assert said == [Text("and so on."), Call("say", '{"it": "a"}')]
    required = answers.held_calls(prompt("required", strict, goes_on=True), [])
    assert takes(family, required, f"and so on.<|end|><|start|>assistant{call}")
    wrong = call.replace('"a"', "1")
    assert not takes(family, required, f"and so on.<|end|><|start|>assistant{wrong}")
    assert not takes(family, held, f"and so on.<|end|><|start|>assistant{wrong}")
    assert not takes(family, required, "and so on.")
    final = ResponseFormat("json_object")
    for tools in ((), (strict,)):
        form = answers.held_json(prompt("auto", *tools, goes_on=True), [], final)
        assert takes(family, form, '{"n": 1}')
        assert not takes(family, form, '<|channel|>final<|message|>{"n": 1}')
        assert takes(family, form, f"<|end|><|start|>assistant{call}") is bool(tools)
    assert parse(answers, asked, family.ids('{"n": 1}')) == [Text('{"n": 1}')]


@pytest.mark.parametrize("tools", ["hermes", "json"])
def test_calls_at_the_beginning_are_held_without_their_marker_too(
    family: Family, tools: ToolParserName
) -> None:
    strict = Tool("say", None, SAY.parameters, strict=True)
    answers, asked = family.answers(tools), prompt("auto", strict)
    held = answers.held_calls(asked, [])
    call = '{"name": "say", "arguments": {"it": "a"}}'
    wrong = call.replace('"a"', "1")
    marked = f"<tool_call>\n{call}\n</tool_call>"
    for good in (
        call,
        f"{call}\n{call}",
        f"{call}\n</tool_call>",
        "Well.",
        "",
        '{"answer": 1}',
        "[1] says so.",
        f"Well. {marked}\n{marked} So.",
        f"{marked}",
    ):
        assert takes(family, held, good), good
    for bad in (wrong, f"[{wrong}]", f"\n {wrong}", f"{marked}".replace('"a"', "1")):
        assert not takes(family, held, bad), bad
    assert check_calls(parse(answers, asked, family.ids(call))) == ["say"]


def test_blocks_of_code_call_no_tool_that_is_strict(family: Family) -> None:
    answers = family.answers("hermes")
    block = '```json\n{"name": "say", "arguments": {"it": 1}}\n```'
    strict = Tool("say", None, SAY.parameters, strict=True)
    assert parse(answers, prompt("auto", strict), family.ids(block)) == [Text(block)]
    [call] = parse(answers, prompt("auto", SAY), family.ids(block))
    assert call == Call("say", '{"it": 1}')
