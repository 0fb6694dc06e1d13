"""When calls are told: held ones while they are written, others whole. What is mended, or text."""
# ruff: noqa: RUF001 - DeepSeek's markers have bars of full width

import json
from typing import Final

import jiter
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.neuron_api import ToolParserName
from neurond.text.parsing.families import CALL_FORMATS
from neurond.text.parsing.harmony import HARMONY_MARKERS, HarmonyParser
from neurond.text.parsing.parser import AnswerParser, HeldCalls, MarkedParser, joined
from neurond.text.parsing.segments import (
    Call,
    CallArguments,
    CallBegun,
    CallEnded,
    Segment,
    Text,
    Tools,
)
from tests.fakes.transcripts import TOOLS, BrokenCall, Told, told

BEHIND: Final = 24
"""Characters of a text that may have come and are not told: an end of it may be forming."""
CONTENT: Final = 'def f():\n\treturn "é😀\\n" < 3  # <b> </\n' * 8
AS_JSON: Final = json.dumps(CONTENT)[1:-1]
OBJECT: Final = f'{{"path": "a.py", "content": "{AS_JSON}"}}'
HERMES_HEAD: Final = '<tool_call>\n{"name": "write_file", "arguments": '
TAGGED: Final = "<function=write_file>\n<parameter=path>\na.py\n</parameter>\n<parameter=content>\n"
WRITTEN: Final[list[tuple[ToolParserName, str]]] = [
    ("hermes", f"{HERMES_HEAD}{OBJECT}}}\n</tool_call>"),
    ("hermes", f'<tool_call>{{"type": "function", "id": 7, "name": "write_file", "args": {OBJECT}'),
    ("json", f'```json\n[{{"function": {{"name": "write_file", "arguments": {OBJECT}}}}}]\n```'),
    ("llama", f'{{"name": "write_file", "parameters": {OBJECT}}}'),
    ("phi", f'functools[{{"name": "write_file", "arguments": {OBJECT}}}]'),
    ("granite", f'<|tool_call|>[{{"name": "write_file", "arguments": {OBJECT}}}]'),
    ("mistral", f'[TOOL_CALLS] [{{"name": "write_file", "arguments": {OBJECT}}}]'),
    ("mistral", f"[TOOL_CALLS]write_file[ARGS]{OBJECT}"),
    (
        "deepseek_v31",
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>write_file<｜tool▁sep｜>{OBJECT}",
    ),
    (
        "deepseek_v3",
        (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>write_file\n```json\n"
            f"{OBJECT}\n```"
        ),
    ),
    (
        "kimi",
        (
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.write_file:0"
            f"<|tool_call_argument_begin|>{OBJECT}"
        ),
    ),
    (
        "harmony",
        (
            "<|channel|>commentary to=functions.write_file <|constrain|>json<|message|>"
            f"{OBJECT}<|call|>"
        ),
    ),
    ("qwen3_coder", f"<tool_call>\n{TAGGED}{CONTENT}\n</parameter>\n</function>\n</tool_call>"),
    ("seed", f"<seed:tool_call>{TAGGED}{CONTENT}\n</parameter></function></seed:tool_call>"),
    (
        "gemma4",
        f'<|tool_call>call:write_file{{path:<|"|>a.py<|"|>,content:<|"|>{CONTENT}<|"|>}}<tool_call|>',
    ),
    (
        "functiongemma",
        (
            f"<start_function_call>call:write_file{{path:<escape>a.py<escape>,content:<escape>{CONTENT}"
            "<escape>}<end_function_call>"
        ),
    ),
    (
        "glm",
        (
            "<tool_call>write_file\n<arg_key>path</arg_key>\n<arg_value>a.py</arg_value>\n"
            f"<arg_key>content</arg_key>\n<arg_value>{CONTENT}</arg_value>\n</tool_call>"
        ),
    ),
]
each_form = pytest.mark.parametrize(("tools", "text"), WRITTEN)


def parser(tools: ToolParserName, *, held: bool = False) -> AnswerParser:
    if tools == "harmony":
        return HarmonyParser(HARMONY_MARKERS, wants_calls=True, held=held)
    where = HeldCalls(all=held)
    return MarkedParser(None, CALL_FORMATS[tools], Tools(TOOLS), frozenset(), held=where)


def parse(
    text: str, tools: ToolParserName = "hermes", *, held: bool = False, cut: bool = False
) -> list[Told]:
    made = parser(tools, held=held)
    return told(joined(made.push(text) + made.flush(cut=cut)))


def written(body: str) -> str:
    return f"{HERMES_HEAD}{body}}}\n</tool_call>"


@each_form
def test_held_arguments_are_told_as_they_are_written(tools: ToolParserName, text: str) -> None:
    made = parser(tools, held=True)
    content = AS_JSON if AS_JSON in text else CONTENT
    begin = text.index(content)
    segments: list[Segment] = []
    for place, character in enumerate(text):
        segments += made.push(character)
        come = place + 1 - begin
        if 0 < come <= len(content):
            [call] = told(joined(segments))
            assert isinstance(call, BrokenCall)
            assert call.name == "write_file"
            said = jiter.from_json(call.arguments.encode(), partial_mode="trailing-strings")
            missing = CONTENT.removeprefix(said["content"])
            assert len(missing) < len(CONTENT) or not said["content"]
            assert len(json.dumps(CONTENT)) - len(json.dumps(missing)) >= come - BEHIND
    [call] = told(joined(segments + made.flush()))
    assert isinstance(call, Call)
    assert json.loads(call.arguments) == {"path": "a.py", "content": CONTENT}


@each_form
def test_others_are_told_when_they_are_whole(tools: ToolParserName, text: str) -> None:
    made = parser(tools)
    segments: list[Segment] = []
    for character in text:
        more = made.push(character)
        begins = [each for each in more if isinstance(each, CallBegun)]
        assert not begins or any(isinstance(each, CallEnded) for each in more)
        segments += more
    [call] = told(joined(segments + made.flush()))
    assert isinstance(call, Call)
    assert json.loads(call.arguments) == {"path": "a.py", "content": CONTENT}


@each_form
def test_one_that_the_model_leaves_unfinished_is_text(tools: ToolParserName, text: str) -> None:
    for end in range(text.index("a.py"), text.index("a.py") + 90):
        [said] = parse(text[:end], tools)
        assert isinstance(said, Text)
        assert "write_file" in said.text
        assert "a.py"[: end - text.index("a.py")] in said.text


@each_form
@pytest.mark.parametrize("held", [True, False])
def test_a_call_that_a_limit_cuts_off_begins_an_object(
    tools: ToolParserName, text: str, held: bool
) -> None:
    for end in range(text.index("a.py"), text.index("a.py") + 90):
        [call] = parse(text[:end], tools, held=held, cut=True)
        assert isinstance(call, BrokenCall)
        assert call.name == "write_file"
        with pytest.raises(ValueError, match=r"."):
            json.loads(call.arguments)
        said = jiter.from_json(call.arguments.encode(), partial_mode="trailing-strings")
        assert "a.py".startswith(said.get("path", ""))
        assert CONTENT.startswith(said.get("content", ""))


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ('{"a": "b\nc\td"}', '{"a": "b\\nc\\td"}'),
        (r'{"a": "\d+ \'x\' C:\users"}', r'{"a": "\\d+ ' + "'x'" + r' C:\\users"}'),
        (r'{"a": "\ud83d\ude00 \ud83d \ude00x"}', r'{"a": "\ud83d\ude00 \ufffd \ufffdx"}'),
        (r'{"a": "\ud83d\ud83d\ude00"}', r'{"a": "\ufffd\ud83d\ude00"}'),
        ('{"a": [1, 2, ], "b": {"c": 3,\n}, }', '{"a": [1, 2 ], "b": {"c": 3\n} }'),
        ('{"a": True, "b": None, "c": [False]}', '{"a": true, "b": null, "c": [false]}'),
        ('{"a": -1.5e3, "b": {}, "c": []}', '{"a": -1.5e3, "b": {}, "c": []}'),
        ("{}", "{}"),
    ],
)  # fmt: skip
def test_slips_without_doubt_are_mended(body: str, arguments: str) -> None:
    assert parse(written(body)) == [Call("write_file", arguments)]
    assert parse(written(body), held=True) == [Call("write_file", arguments)]
    json.loads(arguments)


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ('{"a": "say "hi" to"}', '{"a": "say "'),
        ('{"a": 01}', '{"a":'),
        ('{"a": nope}', '{"a":'),
        ('{"a" "b"}', '{"a"'),
        ("{'a': 1}", "{"),
        ('{"a": [1}}', '{"a": [1'),
        ('{"a": ' + "[" * 70, '{"a": ' + "[" * 63),
    ],
)
def test_what_leaves_json_is_text_and_only_what_was_told_stays_begun(
    body: str, arguments: str
) -> None:
    assert parse(written(body)) == [Text(written(body))]
    assert parse(written(body), cut=True) == [Text(written(body))]
    call = written('{"a": 1}')
    assert parse(f"{call}\n{written(body)}\n{call}") == [
        Call("write_file", '{"a": 1}'),
        Text(written(body)),
        Call("write_file", '{"a": 1}'),
    ]
    assert parse(written(body), held=True) == [BrokenCall("write_file", arguments)]


def test_a_call_is_whole_where_its_arguments_are() -> None:
    call = Call("now", "{}")
    head = '<tool_call>{"name": "now", "arguments": {}'
    assert parse(head) == [call]
    assert parse(f"{head}</tool_call> So.") == [call, Text("So.")]
    assert parse(f'{head}, "id": "x", "more": [1]}}</tool_call> So.') == [call, Text("So.")]
    assert parse(f'{head}}}\n<tool_call>\n{{"name": 7}}') == [
        call,
        Text('<tool_call>\n{"name": 7}'),
    ]


def test_a_call_is_begun_no_sooner_than_it_is_certain() -> None:
    made = parser("json")
    assert made.push('{"name": "Bob", "arguments": {"a"') == [
        Text('{"name": "Bob", "arguments": {"a"')
    ]
    made = parser("json")
    assert made.push('{"name": "now", "arguments": {') == []
    assert made.push("}") == [CallBegun("now"), CallArguments("{}"), CallEnded(is_whole=True)]
    made = parser("json", held=True)
    assert made.push('{"name": "now", "arguments": ') == []
    assert made.push("{") == [CallBegun("now"), CallArguments("{")]
    assert made.push("}") == [CallArguments("}"), CallEnded(is_whole=True)]


@pytest.mark.parametrize("spoils", [True, False])
@pytest.mark.parametrize(
    ("tools", "head", "tail"),
    [
        ("hermes", f'{HERMES_HEAD}{{"content": "', '"}}\n</tool_call>'),
        ("hermes", '<tool_call>{"arguments": {"content": "', '"}, "name": "write_file"}'),
        ("qwen3_coder", TAGGED.replace("path", "p"), "\n</parameter>\n</function>"),
    ],
)
def test_a_long_call_is_whole_or_all_of_it_text(
    tools: ToolParserName, head: str, tail: str, spoils: bool
) -> None:
    content = "".join(f"line {number} of it. " for number in range(3000))
    text = f"{head}{content}{'' if spoils else tail}"
    made = parser(tools)
    segments = [made.push(text[at : at + 37]) for at in range(0, len(text), 37)]
    [said] = told(joined([*(each for some in segments for each in some), *made.flush()]))
    if spoils:
        assert said == Text(text)
    else:
        assert isinstance(said, Call)
        assert json.loads(said.arguments)["content"] == content


def test_arguments_before_the_name_and_such_as_are_no_object_come_whole() -> None:
    assert parse('<tool_call>{"arguments": {"a": 1}, "name": "x"}') == [Call("x", '{"a": 1}')]
    assert parse('<tool_call>{"name": "x", "arguments": "{\\"a\\": 1}"}') == [Call("x", '{"a": 1}')]
    assert parse('<tool_call>{"arguments": {"a": "\\d", "b": True, }, "name": "x"}') == [
        Call("x", '{"a": "\\\\d", "b": true }')
    ], "the same slips are mended"
    assert parse('<tool_call>{"name": "x", "arguments": null}') == [Call("x", "{}")]
    assert parse('<tool_call>{"name": "x", "arguments": [1]}') == [
        Text('<tool_call>{"name": "x", "arguments": [1]}')
    ]


@given(
    st.text(alphabet='{}[]":,\\u0d8é\n eE1.-tfn', max_size=40),
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
)
def test_whatever_is_written_what_is_told_is_json_so_far(
    body: str, step: int, held: bool, cut: bool
) -> None:
    text = f'{HERMES_HEAD}{{"a": {body}'
    made = parser("hermes", held=held)
    pieces = [text[at : at + step] for at in range(0, len(text), step)]
    segments = [segment for piece in pieces for segment in made.push(piece)]
    segments += made.flush(cut=cut)
    answer = told(joined(segments))
    assert answer == parse(text, held=held, cut=cut)
    first = answer[0]
    if isinstance(first, Call):
        json.loads(first.arguments)
    elif isinstance(first, BrokenCall):
        assert held or cut
        jiter.from_json(first.arguments.encode(), partial_mode=True)
    else:
        assert answer == [Text(text)]
