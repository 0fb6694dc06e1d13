"""Tools for models whose template knows of none: described in words, calls and results as text.

The format of the calls is the one that most open models have seen (Hermes 2 Pro's); the parser
`json` reads it. Pure.
"""

import json
from typing import Final

from cortex_core.canonical import ChatPrompt, JsonObject
from neurond.text.messages import TemplateMessage, template_tools

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
    result = [_as_text(message) for message in messages]
    tools = template_tools(prompt)
    if not tools:
        return result
    block = HEAD + "\n".join(_json(tool) for tool in tools) + TAIL
    if result and result[0]["role"] == "system":
        first = {**result[0], "content": f"{result[0]['content']}\n\n{block}"}
        return [first, *result[1:]]
    return [{"role": "system", "content": block}, *result]


def _as_text(message: TemplateMessage) -> TemplateMessage:
    if message["role"] == "tool":
        return {
            "role": "user",
            "content": f"<tool_response>\n{message['content']}\n</tool_response>",
        }
    calls = message.get("tool_calls")
    if not calls:
        return message
    texts = [message["content"]] if message["content"] else []
    texts += [f"<tool_call>\n{_json(_call(call))}\n</tool_call>" for call in calls]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(texts)}


def _call(call: JsonObject) -> JsonObject:
    function: JsonObject = call["function"]
    return {"name": function["name"], "arguments": function["arguments"]}


def _json(value: JsonObject) -> str:
    return json.dumps(value, ensure_ascii=False)
