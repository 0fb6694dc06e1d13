"""Tools for models whose template knows of none: described in words, calls and results as text.

So are calls and results for a template that is told of tools and shows no calls. The format of
calls is the one that the model's parser reads; without a family's own it is Hermes 2 Pro's, which
most open models have seen. Pure.
"""
# ruff: noqa: RUF001 - DeepSeek's markers have bars of full width

import json
from typing import Final

from cortex_core.canonical import ChatPrompt, JsonObject
from cortex_core.neuron_api import ToolParserName
from neurond.text.complete_tools import complete_tools
from neurond.text.messages import TemplateMessage, template_tools
from neurond.text.parsing.families import CALL_FORMATS
from neurond.text.parsing.json_formats import HERMES, JsonFormat, SectionFormat, SpeltCall

HEAD: Final = (
    "# Tools\n\nYou may call functions to help with what the user asks. These are their "
    "signatures, as JSON:\n<tools>\n"
)
TAIL: Final = (
    "\n</tools>\n\nTo call a function, write its name and its arguments as one JSON object, within "
    "<tool_call></tool_call> tags:\n<tool_call>\n"
    '{"name": "<function name>", "arguments": {<arguments>}}\n</tool_call>'
)

OWN_TAIL: Final = (
    "\n</tools>\n\nTo call a function, write its name and its arguments in this form:\n"
)
_DEEPSEEK_HEAD: Final = "## Tools\nYou have access to the following tools:\n\n"
_DEEPSEEK_TOOL: Final = "### {name}\nDescription: {description}\n\nParameters: {parameters}"
_DEEPSEEK_TAIL: Final = (
    "\n\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n"
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments"
    "<｜tool▁call▁end｜>{additional_tool_calls}<｜tool▁calls▁end｜>\n\n"
    "Where:\n- `tool_call_name` must be an exact match to one of the available tools\n"
    "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
    "Schema\n"
    "- For multiple tool calls, chain them directly without separators or spaces"
)
"""The words of the model card of DeepSeek V3.1."""
_PHI_SYSTEM: Final = "You are a helpful assistant with some tools."
"""The words of the model card of Phi 4 mini."""


def with_described_tools(
    messages: list[TemplateMessage],
    prompt: ChatPrompt,
    parser: ToolParserName,
    *,
    in_turn: bool,
    result_turns: bool,
) -> list[TemplateMessage]:
    """Return a conversation in which tools are text: their description, calls and results.

    Args:
        messages: of the conversation.
        prompt: has the tools.
        parser: what reads the model's calls.
        in_turn: the template shows the `tools` of a system turn, as Phi 4 mini's does.
        result_turns: the template shows turns of the tool.
    """
    if parser == "phi" and in_turn:
        return _as_phi(messages, prompt)
    spelling = _spelling(parser)
    own = isinstance(spelling, SectionFormat)
    result = with_calls_as_text(messages, parser, result_turns=own and result_turns)
    tools = template_tools(prompt)
    if not tools:
        return result
    block = _described(tools, parser, spelling)
    if result and result[0]["role"] == "system":
        first = {**result[0], "content": f"{result[0]['content']}\n\n{block}"}
        return [first, *result[1:]]
    return [{"role": "system", "content": block}, *result]


def _described(
    tools: list[JsonObject], parser: ToolParserName, spelling: JsonFormat | SectionFormat
) -> str:
    if parser == "deepseek_v31":
        each = [_DEEPSEEK_TOOL.format(**_told(tool)) for tool in tools]
        return _DEEPSEEK_HEAD + "\n\n".join(each) + _DEEPSEEK_TAIL
    signatures = HEAD + "\n".join(_json(tool) for tool in tools)
    if spelling is HERMES:
        return signatures + TAIL
    example = SpeltCall("<function name>", {"<argument>": "<value>"})
    return f"{signatures}{OWN_TAIL}{spelling.spelt([example])}"


def _told(tool: JsonObject) -> JsonObject:
    function = complete_tools([tool])[0]["function"]
    given = tool["function"]["parameters"]
    return {**function, "parameters": _json(given)}


def _as_phi(messages: list[TemplateMessage], prompt: ChatPrompt) -> list[TemplateMessage]:
    """Return a conversation as Phi 4 mini's model card has it; results have a role of their own."""
    result = [
        {"role": "tool_response", "content": message["content"]}
        if message["role"] == "tool"
        else message
        for message in with_calls_as_text(messages, "phi", result_turns=True)
    ]
    tools = template_tools(prompt)
    if not tools:
        return result
    told = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
    if result and result[0]["role"] == "system":
        return [{**result[0], "tools": told}, *result[1:]]
    return [{"role": "system", "content": _PHI_SYSTEM, "tools": told}, *result]


def with_calls_as_text(
    messages: list[TemplateMessage], parser: ToolParserName, *, result_turns: bool
) -> list[TemplateMessage]:
    """Return a conversation in which calls are text, as `parser` reads them.

    Args:
        messages: of the conversation.
        parser: what reads the model's calls.
        result_turns: results stay in turns of the tool; if not, they are the user's.
    """
    spelling = _spelling(parser)
    return [_as_text(message, spelling, result_turns=result_turns) for message in messages]


def _spelling(parser: ToolParserName) -> JsonFormat | SectionFormat:
    written = CALL_FORMATS.get(parser)
    return written if isinstance(written, JsonFormat | SectionFormat) else HERMES


def _as_text(
    message: TemplateMessage, spelling: JsonFormat | SectionFormat, *, result_turns: bool
) -> TemplateMessage:
    if message["role"] == "tool" and not result_turns:
        return {
            "role": "user",
            "content": f"<tool_response>\n{message['content']}\n</tool_response>",
        }
    calls = message.get("tool_calls")
    if not calls:
        return message
    text = spelling.spelt([_call(call) for call in calls])
    if message["content"]:
        between = "" if isinstance(spelling, SectionFormat) else "\n"
        text = f"{message['content']}{between}{text}"
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": text}


def _call(call: JsonObject) -> SpeltCall:
    return SpeltCall(call["function"]["name"], call["function"]["arguments"])


def _json(value: JsonObject) -> str:
    return json.dumps(value, ensure_ascii=False)
