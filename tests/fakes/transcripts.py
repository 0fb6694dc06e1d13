"""What models of each family say when they think and call tools, and what it means.

Written after the formats' public documentation: chat templates, prompt format pages and the
examples of the families' own papers and repositories.
"""
# ruff: noqa: E501, RUF001 - transcripts are kept whole, DeepSeek's bars are of full width

from typing import NamedTuple

from cortex_core.canonical import Tool
from cortex_core.neuron_api import ReasoningParserName, ToolParserName
from neurond.text.parsing.segments import (
    Call,
    CallArguments,
    CallBegun,
    CallEnded,
    Reasoning,
    Segment,
    Text,
)

WEATHER = Tool(
    "get_weather",
    "Tells the weather.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "hourly": {"type": "boolean"},
        },
        "required": ["city"],
    },
)
WRITE = Tool(
    "write_file",
    "Writes a file.",
    {
        "type": "object",
        "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
        "required": ["path", "content"],
    },
)
NOW = Tool("now", "Tells the time.", {"type": "object", "properties": {}})
TOOLS = (WEATHER, WRITE, NOW)

PARIS = Call("get_weather", '{"city": "Paris"}')
PARIS_COMPACT = Call("get_weather", '{"city":"Paris"}')
ROME_3 = Call("get_weather", '{"city": "Rome", "days": 3}')
ROME_3_COMPACT = Call("get_weather", '{"city":"Rome","days":3}')


class BrokenCall(NamedTuple):
    """A call that broke off, with what was told of its arguments."""

    name: str
    arguments: str


Told = Text | Reasoning | Call | BrokenCall


def told(segments: list[Segment]) -> list[Told]:
    """Return segments with the pieces of each call as one; a call that is open is broken."""
    result: list[Told] = []
    open_call: list[str] | None = None
    for segment in segments:
        match segment:
            case CallBegun(name):
                assert open_call is None, "calls do not overlap"
                open_call = [name, ""]
            case CallArguments(text):
                assert open_call is not None
                open_call[1] += text
            case CallEnded(is_whole):
                assert open_call is not None
                result.append((Call if is_whole else BrokenCall)(*open_call))
                open_call = None
            case _:
                assert open_call is None, "nothing stands within a call"
                result.append(segment)
    return [*result, BrokenCall(*open_call)] if open_call is not None else result


class Transcript(NamedTuple):
    name: str
    tools: ToolParserName
    reasoning: ReasoningParserName
    text: str
    segments: "list[Told]"
    thinks: bool = False


def _hermes(body: str) -> str:
    return f"<tool_call>\n{body}\n</tool_call>"


_PARIS = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
_ROME = '{"name": "get_weather", "arguments": {"city": "Rome", "days": 3}}'
_LINE = "\n"
_CODE = 'if a < b:\n    print("</tool_call> is text")\n'
_DS_BEGIN, _DS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_DS_CALL, _DS_CALL_END, _DS_SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"

TRANSCRIPTS = [
    Transcript(
        "plain", "hermes", "think", "Hello!\n\nHow are you? \n", [Text("Hello!\n\nHow are you? \n")]
    ),
    Transcript("hermes", "hermes", "none", _hermes(_PARIS), [PARIS]),
    Transcript(
        "hermes-parallel",
        "hermes",
        "none",
        f"I'll look.\n\n{_hermes(_PARIS)}\n{_hermes(_ROME)}\n",
        [Text("I'll look."), PARIS, ROME_3],
    ),
    Transcript(
        "qwen3-thinks",
        "hermes",
        "think",
        f"<think>\nParis it is.\n\nYes.\n</think>\n\n{_hermes(_PARIS)}",
        [Reasoning("Paris it is.\n\nYes."), PARIS],
    ),
    Transcript(
        "r1-thinks-since-the-prompt",
        "hermes",
        "think",
        "Let me see.\n</think>\n\nIt is sunny.",
        [Reasoning("Let me see."), Text("It is sunny.")],
        thinks=True,
    ),
    Transcript(
        "r1-opens-its-thoughts-again",
        "hermes",
        "think",
        "\n<think>\nLet me see.\n</think>\n\nIt is sunny.",
        [Reasoning("Let me see."), Text("It is sunny.")],
        thinks=True,
    ),
    Transcript(
        "qwen3-thinks-nothing", "hermes", "think", "<think>\n\n</think>\n\nHi.", [Text("Hi.")]
    ),
    Transcript(
        "think-cut-off", "hermes", "think", "Well, let me", [Reasoning("Well, let me")], thinks=True
    ),
    Transcript(
        "hermes-without-arguments",
        "hermes",
        "none",
        _hermes('{"name": "now"}'),
        [Call("now", "{}")],
    ),
    Transcript(
        "smollm-array",
        "hermes",
        "none",
        f"<tool_call>[{_PARIS}, {_ROME}]</tool_call>",
        [PARIS, ROME_3],
    ),
    Transcript(
        "hermes-arguments-written-twice",
        "hermes",
        "none",
        _hermes('{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}'),
        [PARIS],
    ),
    Transcript(
        "hermes-marker-in-a-string",
        "hermes",
        "none",
        _hermes(
            '{"name": "write_file", "arguments": {"path": "a", "content": "</tool_call>{\\"<tool_call>"}}'
        ),
        [Call("write_file", '{"path": "a", "content": "</tool_call>{\\"<tool_call>"}')],
    ),
    Transcript(
        "hermes-line-end-in-a-string",
        "hermes",
        "none",
        _hermes('{"name": "write_file", "arguments": {"path": "a", "content": "b\nc"}}'),
        [Call("write_file", '{"path": "a", "content": "b\\nc"}')],
    ),
    Transcript("hermes-without-end", "hermes", "none", f"<tool_call>\n{_PARIS}", [PARIS]),
    Transcript("qwen2.5-coder-bare", "hermes", "none", f"{_PARIS}\n</tool_call>", [PARIS]),
    Transcript(
        "qwen2.5-coder-bare-parallel", "hermes", "none", f"{_PARIS}\n{_ROME}", [PARIS, ROME_3]
    ),
    Transcript("qwen2.5-coder-block", "hermes", "none", f"```json\n{_PARIS}\n```", [PARIS]),
    Transcript(
        "qwen2.5-coder-block-in-tag",
        "hermes",
        "none",
        f"I look.\n{_hermes(f'```json{_LINE}{_PARIS}{_LINE}```')}\nNow we wait.",
        [Text("I look."), PARIS, Text("Now we wait.")],
    ),
    Transcript(
        "hermes-other-json", "hermes", "none", '{"answer": 42}\n', [Text('{"answer": 42}\n')]
    ),
    Transcript(
        "hermes-bare-other-name",
        "hermes",
        "none",
        '{"name": "Bob", "arguments": {}}',
        [Text('{"name": "Bob", "arguments": {}}')],
    ),
    Transcript(
        "hermes-brackets-too-many",
        "hermes",
        "none",
        f"{_hermes(_PARIS + '}')}\n{_hermes(_ROME + ' }]')}\nThere.",
        [PARIS, ROME_3, Text("There.")],
    ),
    Transcript(
        "hermes-bracket-without-end",
        "hermes",
        "none",
        f"<tool_call>\n{_PARIS}\n}} there",
        [PARIS, Text("} there")],
    ),
    Transcript(
        "hermes-malformed",
        "hermes",
        "none",
        "<tool_call>\n{'name': now}\n</tool_call> Sorry.",
        [Text("<tool_call>\n{'name': now}\n</tool_call> Sorry.")],
    ),
    Transcript(
        "hermes-cut-off",
        "hermes",
        "none",
        'Look: <tool_call>\n{"name": "get_weather", "arg',
        [Text('Look: <tool_call>\n{"name": "get_weather", "arg')],
    ),
    Transcript(
        "qwen3-coder",
        "qwen3_coder",
        "none",
        "I write it.\n\n<tool_call>\n<function=write_file>\n<parameter=path>\na.py\n</parameter>\n"
        f"<parameter=content>\n{_CODE}\n</parameter>\n</function>\n</tool_call>",
        [
            Text("I write it."),
            Call(
                "write_file",
                '{"path":"a.py","content":"if a < b:\\n    print(\\"</tool_call> is text\\")\\n"}',
            ),
        ],
    ),
    Transcript(
        "qwen3-coder-types",
        "qwen3_coder",
        "none",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\n42\n</parameter>\n<parameter=days>\n3\n"
        "</parameter>\n<parameter=hourly>\nTrue\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=now>\n</function>\n</tool_call>",
        [Call("get_weather", '{"city":"42","days":3,"hourly":true}'), Call("now", "{}")],
    ),
    Transcript(
        "qwen3-coder-without-outer-tag",
        "qwen3_coder",
        "none",
        "<function=now>\n</function>\n</tool_call>",
        [Call("now", "{}")],
    ),
    Transcript(
        "seed",
        "seed",
        "seed",
        "<seed:think>Hm.</seed:think><seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris"
        "</parameter>\n</function>\n</seed:tool_call>",
        [Reasoning("Hm."), PARIS_COMPACT],
    ),
    Transcript(
        "qwen3-coder-without-function-end",
        "qwen3_coder",
        "none",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</tool_call>\n"
        "<tool_call>\n<function=now>\n</tool_call>",
        [PARIS_COMPACT, Call("now", "{}")],
    ),
    Transcript(
        "seed-without-function-end",
        "seed",
        "none",
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n</seed:tool_call>"
        " Done.",
        [PARIS_COMPACT, Text("Done.")],
    ),
    Transcript(
        "llama-bare",
        "llama",
        "none",
        '{"name": "get_weather", "parameters": {"city": "Paris"}}',
        [PARIS],
    ),
    Transcript(
        "llama-python-tag",
        "llama",
        "none",
        '<|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "Rome", "days": 3}}; '
        '{"name": "now", "parameters": {}}',
        [ROME_3, Call("now", "{}")],
    ),
    Transcript("llama-other-json", "llama", "none", '{"answer": 42}\n', [Text('{"answer": 42}\n')]),
    Transcript(
        "llama-no-such-tool",
        "llama",
        "none",
        '{"name": "Bob", "parameters": {"age": 3}}',
        [Text('{"name": "Bob", "parameters": {"age": 3}}')],
    ),
    Transcript(
        "llama-pythonic",
        "llama",
        "none",
        "[get_weather(city='Paris')]",
        [PARIS_COMPACT],
    ),
    Transcript(
        "llama-pythonic-then-prose",
        "llama",
        "none",
        "[get_weather(city='Paris')]\nThe result is fine.",
        [PARIS_COMPACT, Text("The result is fine.")],
    ),
    Transcript(
        "pythonic-then-prose",
        "pythonic",
        "none",
        '[get_weather(city="Paris"), now()]\nThe result is fine.',
        [PARIS_COMPACT, Call("now", "{}"), Text("The result is fine.")],
    ),
    Transcript(
        "llama4-pythonic",
        "pythonic",
        "none",
        "<|python_start|>[get_weather(city='Rome', days=3), now()]<|python_end|>",
        [ROME_3_COMPACT, Call("now", "{}")],
    ),
    Transcript(
        "pythonic-values",
        "pythonic",
        "none",
        "[write_file(path=\"a\\'b\\u00e9\", content={'x': [1, -2.5, (True, None)], \"y\": ''})]",
        [Call("write_file", '{"path":"a\'bé","content":{"x":[1,-2.5,[true,null]],"y":""}}')],
    ),
    Transcript(
        "pythonic-no-call", "pythonic", "none", "[1, 2] is a list.", [Text("[1, 2] is a list.")]
    ),
    Transcript(
        "olmo3",
        "pythonic",
        "none",
        '<function_calls>get_weather(city="Paris")\nnow()</function_calls>',
        [PARIS_COMPACT, Call("now", "{}")],
    ),
    Transcript(
        "mistral-v3", "mistral", "none", f"[TOOL_CALLS] [{_PARIS}, {_ROME}]", [PARIS, ROME_3]
    ),
    Transcript(
        "mistral-v11",
        "mistral",
        "none",
        'Sure.[TOOL_CALLS]get_weather[CALL_ID]abc123XYZ[ARGS]{"city": "Paris"}[TOOL_CALLS]now[ARGS]{}',
        [Text("Sure."), PARIS, Call("now", "{}")],
    ),
    Transcript(
        "mistral-v11-short", "mistral", "none", '[TOOL_CALLS]get_weather{"city": "Paris"}', [PARIS]
    ),
    Transcript(
        "magistral",
        "mistral",
        "mistral",
        "[THINK]Let me think.[/THINK]Hello.",
        [Reasoning("Let me think."), Text("Hello.")],
    ),
    Transcript(
        "harmony",
        "harmony",
        "harmony",
        "<|channel|>analysis<|message|>Need the weather.<|end|><|start|>assistant<|channel|>commentary "
        'to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>',
        [Reasoning("Need the weather."), PARIS],
    ),
    Transcript(
        "harmony-recipient-before-channel",
        "harmony",
        "harmony",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant to=functions.now<|channel|>commentary json"
        "<|message|>{}",
        [Reasoning("Hm."), Call("now", "{}")],
    ),
    Transcript(
        "harmony-preamble-and-final",
        "harmony",
        "harmony",
        "<|channel|>commentary<|message|>First this.<|end|><|start|>assistant<|channel|>final<|message|> It is sunny."
        "<|return|>",
        [Text("First this.It is sunny.")],
    ),
    Transcript(
        "deepseek-v3",
        "deepseek_v3",
        "think",
        f'I call.{_DS_BEGIN}{_DS_CALL}function{_DS_SEP}get_weather\n```json\n{{"city": "Paris"}}\n```{_DS_CALL_END}\n'
        f"{_DS_CALL}function{_DS_SEP}now\n```json\n{{}}\n```{_DS_CALL_END}{_DS_END}",
        [Text("I call."), PARIS, Call("now", "{}")],
    ),
    Transcript(
        "deepseek-v31",
        "deepseek_v31",
        "think",
        f'Hm.</think>{_DS_BEGIN}{_DS_CALL}get_weather{_DS_SEP}{{"city": "Paris"}}{_DS_CALL_END}{_DS_END}',
        [Reasoning("Hm."), PARIS],
        thinks=True,
    ),
    Transcript(
        "kimi-k2",
        "kimi",
        "none",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"city": "Paris"}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}'
        "<|tool_call_end|><|tool_calls_section_end|>",
        [PARIS, Call("now", "{}")],
    ),
    Transcript(
        "glm-4.5",
        "glm",
        "think",
        "<think>Weather.</think>\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        [Reasoning("Weather."), ROME_3_COMPACT],
    ),
    Transcript(
        "glm-4.7",
        "glm",
        "think",
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call><tool_call>now</tool_call>",
        [PARIS_COMPACT, Call("now", "{}")],
    ),
    Transcript(
        "gemma4",
        "gemma4",
        "gemma4",
        '<|channel>thought\nWeather.\n<channel|><|tool_call>call:get_weather{city:<|"|>Rome<|"|>,days:3}<tool_call|>',
        [Reasoning("Weather."), ROME_3_COMPACT],
    ),
    Transcript(
        "functiongemma",
        "functiongemma",
        "none",
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>}<end_function_call>",
        [PARIS_COMPACT],
    ),
    Transcript(
        "deepseek-r1-in-its-own-way",
        "json",
        "think",
        f'Hm.</think>I call.{_DS_BEGIN}{_DS_CALL}function{_DS_SEP}get_weather\n```json\n{{"city": "Paris"}}\n```'
        f"{_DS_CALL_END}{_DS_END}",
        [Reasoning("Hm."), Text("I call."), PARIS],
        thinks=True,
    ),
    Transcript(
        "gemma3-tool-code",
        "json",
        "none",
        'Let me look.\n```tool_code\nprint(get_weather(city="Paris"))\n```',
        [Text("Let me look."), PARIS_COMPACT],
    ),
    Transcript(
        "gemma3-print-then-prose",
        "json",
        "none",
        'print(get_weather(city="Paris"))\nThe result is fine.',
        [Text('print(get_weather(city="Paris"))\nThe result is fine.')],
    ),
    Transcript(
        "gemma3-tool-code-then-prose",
        "json",
        "none",
        '```tool_code\nprint(get_weather(city="Paris"))\nThe result is fine.\n```',
        [PARIS_COMPACT, Text("The result is fine.\n```")],
    ),
    Transcript("gemma3-json", "json", "none", f"```json\n{_PARIS}\n```", [PARIS]),
    Transcript(
        "json-that-is-an-example",
        "json",
        "none",
        'Like so:\n```json\n{"a": 1}\n```\nDone.',
        [Text('Like so:\n```json\n{"a": 1}\n```\nDone.')],
    ),
    Transcript("generic", "json", "none", _hermes(_PARIS), [PARIS]),
    Transcript("generic-bare", "json", "none", _PARIS, [PARIS]),
    Transcript(
        "generic-openai-shape",
        "json",
        "none",
        f'[{{"type": "function", "function": {_PARIS}}}]',
        [PARIS],
    ),
    Transcript("phi4-mini", "phi", "none", f"<|tool_call|>[{_PARIS}]<|/tool_call|>", [PARIS]),
    Transcript("phi4-mini-functools", "phi", "none", f"functools[{_PARIS}]", [PARIS]),
    Transcript(
        "granite-3", "granite", "granite", f"<|tool_call|>[{_PARIS}, {_ROME}]", [PARIS, ROME_3]
    ),
    Transcript(
        "granite-3.2-thinks",
        "granite",
        "granite",
        "Here is my thought process: Simple.\n\nHere is my response: Hello.",
        [Reasoning("Simple."), Text("Hello.")],
    ),
]
