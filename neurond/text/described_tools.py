"""Tools for models whose template knows of none: described in words, calls and results as text.

So are calls and results for a template that is told of tools and shows no calls. The format of
calls is the one that the model's parser reads; without a family's own it is Hermes 2 Pro's, which
most open models have seen. Pure.
"""

import json
from typing import Final

from cortex_core.canonical import ChatPrompt, JsonObject
from cortex_core.neuron_api import ToolParserName
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


def with_described_tools(
    messages: list[TemplateMessage], prompt: ChatPrompt
) -> list[TemplateMessage]:
    """Return a conversation in which tools are text: their description, calls and results."""
    result = with_calls_as_text(messages, "json", result_turns=False)
    tools = template_tools(prompt)
    if not tools:
        return result
    block = HEAD + "\n".join(_json(tool) for tool in tools) + TAIL
    if result and result[0]["role"] == "system":
        first = {**result[0], "content": f"{result[0]['content']}\n\n{block}"}
        return [first, *result[1:]]
    return [{"role": "system", "content": block}, *result]


def with_calls_as_text(
    messages: list[TemplateMessage], parser: ToolParserName, *, result_turns: bool
) -> list[TemplateMessage]:
    """Return a conversation in which calls are text, as `parser` reads them.

    Args:
        messages: of the conversation.
        parser: what reads the model's calls.
        result_turns: results stay in turns of the tool; if not, they are the user's.
    """
    written = CALL_FORMATS.get(parser)
    spelling = written if isinstance(written, JsonFormat | SectionFormat) else HERMES
    return [_as_text(message, spelling, result_turns=result_turns) for message in messages]


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
