"""Calls that may be, of tools that are not strict: held behind their marker, and nowhere else."""

import itertools
import json
import random
from collections.abc import Callable, Iterable, Sequence

import pytest

from cortex_core.canonical import ChatPrompt, Tool
from cortex_core.neuron_api import ReasoningParserName, ToolParserName
from neurond.engine.grammar import check_format
from neurond.engine.triggered_grammar import TriggeredGrammar
from neurond.engine.triggers import DeviceFormat, TriggerWatch
from neurond.text.formats import encoded_format
from neurond.text.parsing.answer_format import AnswerFormat, HeldForm
from neurond.text.parsing.families import CALL_FORMATS
from neurond.text.parsing.parser import joined
from neurond.text.parsing.segments import CallBegun, Reasoning, Text
from tests.fakes.grammar_walks import bits_of
from tests.fakes.transcripts import BrokenCall, Told, told
from tests.unit.neurond.text.parsing.held_families import (
    CLOSING,
    NOTHING,
    SAY,
    SEARCH,
    Family,
    check_calls,
    parse,
    prompt,
)

MARKED: list[ToolParserName] = [
    *("hermes", "json", "qwen3_coder", "seed", "deepseek_v3", "deepseek_v31", "kimi", "glm"),
    *("gemma4", "functiongemma", "phi", "granite"),
]
"""Those whose marker has angle brackets; Mistral's is one where it is special."""
UNMARKED: list[ToolParserName] = ["llama", "pythonic", "harmony"]
BEGUN = '<tool_call>\n{"name": "say", "arguments": {"it": "a'
CALL = f'{BEGUN}"}}}}\n</tool_call>'


def form(answers: AnswerFormat, asked: ChatPrompt, ids: Sequence[int] = ()) -> HeldForm:
    held = answers.held_calls(asked, ids)
    assert held is not None
    assert held.calls.triggers is not None
    return held


def grammar_of(family: Family, held: HeldForm, replayed: Sequence[int] = ()) -> TriggeredGrammar:
    wanted = DeviceFormat("grammar", text=held.grammar, triggers=held.calls.triggers)
    ends = (family.speller.end,)
    grammar = family.speller.compiler.compile_triggered(wanted, ends=ends, replayed=replayed)
    assert grammar is not None
    return grammar


def allowed(grammar: TriggeredGrammar) -> set[int] | None:
    words = grammar.allowed()
    return None if words is None else bits_of(words)


def parse_tokens(
    answers: AnswerFormat,
    asked: ChatPrompt,
    tokens: Sequence[int],
    held: HeldForm,
    *,
    thinks: bool = False,
) -> list[Told]:
    """Parse token by token, as answers come."""
    made = answers.parser(asked, held.calls, thinks=thinks, keep_blanks=False)
    assert made is not None
    assert held.calls.triggers is not None
    watch = TriggerWatch(held.calls.triggers)
    segments = []
    for token in tokens:
        text = answers.pieces.piece(token).decode("utf-8", "replace")
        segments += made.push(text, triggers=watch.takes(token))
    return told(joined(segments + made.flush()))


def walk(family: Family, answers: AnswerFormat, held: HeldForm, seed: int) -> list[int] | None:
    """Return a random answer: prose, a call, prose that looks like a call, another call."""
    grammar = grammar_of(family, held)
    assert held.calls.triggers is not None
    [marker] = held.calls.triggers.token_ids
    chance = random.Random(seed)
    prose = family.ids("Well, ")
    tokens: list[int] = []
    for begun in ([*prose, marker], [*family.ids('so {"name": [1'), marker], family.ids(" [x]")):
        for token in begun:
            assert grammar.allowed() is None
            grammar.advance(token)
        tokens += begun
        for _ in range(600):
            mask = allowed(grammar)
            if mask is None:
                break
            assert family.speller.end not in mask
            closing = [token for token in sorted(mask) if answers.pieces.piece(token) in CLOSING]
            taken = chance.choice(closing if closing and chance.random() < 0.7 else sorted(mask))
            tokens.append(taken)
            grammar.advance(taken)
        else:
            return None
    assert not grammar.is_complete
    return tokens


@pytest.mark.parametrize("tools", MARKED)
@pytest.mark.parametrize("reasoning", ["none", "think"])
def test_what_follows_a_marker_is_a_call_and_all_else_is_free(
    family: Family, tools: ToolParserName, reasoning: ReasoningParserName
) -> None:
    answers, asked = family.answers(tools, reasoning), prompt("auto", SEARCH, NOTHING)
    held = form(answers, asked)
    check_format(encoded_format(DeviceFormat("grammar", text=held.trial)) or b"")
    found = 0
    for seed in range(5):
        tokens = walk(family, answers, held, seed)
        if tokens is None:
            continue
        segments = parse_tokens(answers, asked, tokens, held)
        assert not [each for each in segments if isinstance(each, BrokenCall)], segments
        assert segments == parse(answers, asked, tokens)
        assert len(check_calls(segments)) >= 2
        assert isinstance(segments[0], Text)
        found += 1
    assert found


VALUES = {"where": "web", "most": 3, "deep": True, "tags": ["b"]}
NUMBERED = Tool(
    "search",
    None,
    {
        "type": "object",
        "properties": {name: {"type": "integer"} for name in "abcdefg"},
        "required": [*"abcdef"],
    },
)


def as_json(names: Iterable[str]) -> str:
    arguments = ", ".join(f'"{name}": {json.dumps(VALUES.get(name, 1))}' for name in names)
    return f'<tool_call>\n{{"name": "search", "arguments": {{{arguments}}}}}\n</tool_call>'


def in_tags(names: Iterable[str]) -> str:
    texts = {name: v if isinstance(v, str) else json.dumps(v) for name, v in VALUES.items()}
    given = [f"<parameter={name}>\n{texts.get(name, 1)}\n</parameter>\n" for name in names]
    return f"<tool_call>\n<function=search>\n{''.join(given)}</function>\n</tool_call>"


def takes(family: Family, grammar: TriggeredGrammar, text: str) -> bool:
    """Whether `text` can be said, a token for each byte that is in no marker."""
    for token in family.ids(text):
        mask = allowed(grammar)
        if mask is not None and token not in mask:
            return False
        grammar.advance(token)
    return True


@pytest.mark.parametrize(
    ("tools", "written"), [("hermes", as_json), ("qwen3_coder", in_tags)], ids=["json", "tags"]
)
def test_arguments_may_come_in_any_order(
    family: Family, tools: ToolParserName, written: Callable[[Iterable[str]], str]
) -> None:
    held = form(family.answers(tools), prompt("auto", SEARCH, SAY))
    orders = [order for count in range(5) for order in itertools.permutations(VALUES, count)]
    for order in [*orders, ("where", "tags", "most", "tags")]:
        has_required = {"where", "most"} <= {*order}
        assert takes(family, grammar_of(family, held), written(order)) is has_required, order
    for wrong in (["where", "most", "where"], ["where", "most", "other"]):
        assert not takes(family, grammar_of(family, held), written(wrong))


BOUNDS = [
    {"minLength": 1},
    {"maxLength": 9000},
    {"format": "uri"},
    {"pattern": "^d"},
    {"allOf": []},
]
TEXT = "def f(a):\n    return a < 1"


@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda bounds: next(iter(bounds)))
@pytest.mark.parametrize(
    ("tools", "written"),
    [
        ("qwen3_coder", "<tool_call>\n<function=say>\n<parameter=it>\n{}\n</parameter>\n"),
        ("glm", "<tool_call>say\n<arg_key>it</arg_key>\n<arg_value>{}</arg_value>\n"),
        ("gemma4", '<|tool_call>call:say{{it:<|"|>{}<|"|>'),
    ],
    ids=lambda each: each.partition("<")[0],
)
def test_texts_between_tags_are_not_cut_for_what_a_schema_says_of_them(
    family: Family, tools: ToolParserName, written: str, bounds: dict[str, object]
) -> None:
    said = {"type": "object", "properties": {"it": {"type": "string", **bounds}}}
    held = form(family.answers(tools), prompt("auto", Tool("say", None, said)))
    assert takes(family, grammar_of(family, held), written.format(TEXT))


def test_of_many_required_arguments_some_are_waited_for(family: Family) -> None:
    held = form(family.answers("hermes"), prompt("auto", NUMBERED))
    for names, fits in (("gfedcba", True), ("dcba", True), ("gfedcb", False)):
        assert takes(family, grammar_of(family, held), as_json(names)) is fits


def test_a_marker_that_is_text_holds_nothing(family: Family) -> None:
    for tools in UNMARKED:
        assert family.answers(tools).held_calls(prompt("auto", SAY), []) is None
    is_special = family.answers("mistral").held_calls(prompt("auto", SAY), []) is not None
    decoder = family.tokenizer.get_added_tokens_decoder().values()
    assert is_special == any(each.special and each.content == "[TOOL_CALLS]" for each in decoder)
    assert set(MARKED) | set(UNMARKED) | {"mistral"} == {*CALL_FORMATS, "harmony"}


def test_a_marker_that_is_spelt_in_other_tokens_holds_nothing(family: Family) -> None:
    answers, asked = family.answers("hermes"), prompt("auto", SAY)
    held = form(answers, asked)
    spelt = [*family.ids("<tool_"), *family.ids(BEGUN.removeprefix("<tool_"))]
    grammar = grammar_of(family, held, spelt)
    assert grammar.allowed() is None
    spelt += family.ids(" and so on")
    [text] = parse_tokens(answers, asked, spelt, held)
    assert isinstance(text, Text)
    assert text.text.endswith('"it": "a and so on')
    assert isinstance(parse_tokens(answers, asked, family.ids(BEGUN), held)[0], BrokenCall)


def test_held_calls_are_told_while_they_are_written(family: Family) -> None:
    answers, asked = family.answers("hermes"), prompt("auto", SAY)
    made = answers.parser(asked, form(answers, asked).calls, thinks=False, keep_blanks=False)
    assert made is not None
    made.push("<tool_call>", triggers=True)
    assert CallBegun("say") in made.push(BEGUN.removeprefix("<tool_call>"))


@pytest.mark.parametrize("opened", [True, False])
def test_thoughts_trigger_nothing_where_the_marker_may_stand_in_them(
    family: Family, opened: bool
) -> None:
    answers, asked = family.answers("hermes", "think"), prompt("auto", SAY)
    prompt_ids = family.ids("Hi<think>\n" if opened else "Hi")
    held = form(answers, asked, prompt_ids)
    begins = family.ids("" if opened else "<think>") + family.ids(f"I say {BEGUN}")
    grammar = grammar_of(family, held, begins)
    marker = family.ids("<tool_call>")[0]
    is_special = answers.pieces is not family.speller.pieces
    assert (grammar.allowed() is not None) is is_special  # it ends thoughts then
    if is_special:
        return
    tokens = [*begins, *family.ids(" so.</think>\n"), *family.ids(CALL)]
    for token in tokens[len(begins) :]:
        assert allowed(grammar) is None or token in (allowed(grammar) or ())
        grammar.advance(token)
    assert tokens.count(marker) == 2
    thought, call = parse_tokens(answers, asked, tokens, held, thinks=opened)
    assert thought == Reasoning(f"I say {BEGUN} so.")
    assert check_calls([call]) == ["say"]


def test_thoughts_whose_ends_are_text_leave_calls_unheld(family: Family) -> None:
    held = family.answers("hermes", "granite").held_calls(prompt("auto", SAY), [])
    answers = family.answers("hermes")
    assert (held is not None) is (answers.pieces is not family.speller.pieces)


@pytest.mark.parametrize("reasoning", ["none", "think"])
def test_an_answer_goes_on_elsewhere_in_the_same_state(
    family: Family, reasoning: ReasoningParserName
) -> None:
    answers, asked = family.answers("hermes", reasoning), prompt("auto", SAY, SEARCH)
    held = form(answers, asked)
    grammar = grammar_of(family, held)
    tokens = family.ids(f"<think>Hm.</think>Well. {CALL} and {CALL}")
    for place, token in enumerate(tokens):
        again = grammar_of(family, held, tokens[:place])
        assert allowed(again) == allowed(grammar) == allowed(grammar.fork())
        grammar.advance(token)


@pytest.mark.parametrize(
    "call",
    [
        CALL,
        '<tool_call>{"name":"say","arguments":{"it":"a"}}</tool_call>',
        '<tool_call>\n{ "name": "say",\n "arguments": {"it": "a"}\n}\n\n</tool_call>',
    ],
)
def test_blanks_may_stand_where_json_has_them(family: Family, call: str) -> None:
    answers, asked = family.answers("hermes"), prompt("auto", SAY)
    held = form(answers, asked)
    grammar = grammar_of(family, held)
    tokens = family.ids(call)
    for token in tokens:
        mask = allowed(grammar)
        assert mask is None or token in mask
        grammar.advance(token)
    assert grammar.allowed() is None
    assert check_calls(parse_tokens(answers, asked, tokens, held)) == ["say"]


@pytest.mark.parametrize(
    ("tools", "call"),
    [
        ("qwen3_coder", "<tool_call>\n<function=say>\n<parameter=it>\na</parameter></function>"),
        (
            "glm",
            "<tool_call>say<arg_key>it</arg_key><arg_value>a</arg_value></tool_call>",
        ),
    ],
)
def test_a_text_between_tags_ends_at_its_tag(
    family: Family, tools: ToolParserName, call: str
) -> None:
    grammar = grammar_of(family, form(family.answers(tools), prompt("auto", SAY)))
    for token in family.ids(call):
        mask = allowed(grammar)
        assert mask is None or token in mask
        grammar.advance(token)


def test_what_follows_a_held_list_is_not_told_early(family: Family) -> None:
    answers, asked = family.answers("granite"), prompt("auto", SAY)
    held = form(answers, asked)
    call = '<|tool_call|>[{"name": "say", "arguments": {"it": "a"}}]'
    behind = ' {"name": "say", "arguments": {"it": [oh'
    segments = parse_tokens(answers, asked, family.ids(call + behind), held)
    assert check_calls(segments) == ["say"]
    assert segments[1] == Text(behind.strip())


def test_drafts_go_on_behind_a_marker_as_far_as_the_call_may(family: Family) -> None:
    grammar = grammar_of(family, form(family.answers("hermes"), prompt("auto", SAY)))
    prose, call = family.ids("Well, "), family.ids(CALL)
    assert grammar.fitting(prose) == len(prose)
    begun = [*prose, *call[:12]]
    assert grammar.fitting([*begun, *prose]) == len(begun)
    assert list(grammar.forced()) == []
    fork = grammar.fork()
    for token in begun:
        grammar.advance(token)
    assert grammar.fitting([*call[12:14], *prose]) == 2
    assert fork.allowed() is None


def test_where_the_grammar_fails_an_answer_is_free(family: Family) -> None:
    held = form(family.answers("hermes"), prompt("auto", SAY))
    marker, other = family.ids("<tool_call>")[0], family.ids("x")[0]
    grammar = grammar_of(family, held)
    grammar.advance(marker)
    assert grammar.allowed() is not None
    grammar.advance(other)  # which no mask would have let through
    assert grammar.allowed() is None
    grammar.advance(marker)
    assert grammar.allowed() is not None
    spoilt = DeviceFormat("grammar", text="start: nowhere", triggers=held.calls.triggers)
    assert family.speller.compiler.compile_triggered(spoilt, ends=(family.speller.end,)) is None


def test_strict_tools_and_required_calls_are_held_from_the_first_token(family: Family) -> None:
    answers = family.answers("hermes")
    strict = Tool("kept", None, SAY.parameters, strict=True)
    for asked in (prompt("auto", SAY, strict), prompt("required", SAY)):
        held = answers.held_calls(asked, [])
        assert held is not None
        assert held.calls.triggers is None
