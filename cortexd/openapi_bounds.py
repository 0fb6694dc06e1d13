"""What requests may have beyond their types, for the OpenAPI document.

Dialects check ranges where they decode, with messages in the client's words; types do not have
them. Here they stand as schemas: who generates requests from the document gets ones that are taken.
By the names of components, their members. A test asks the gateway with what the document describes.
"""

from typing import Any, Final

from cortex_core.canonical import JsonObject
from cortex_core.dialects.fields import MAX_MODEL_CHARS
from cortex_core.dialects.openai_completions import MAX_PROMPTS
from cortex_core.sampling_limits import (
    MAX_CHOICES,
    MAX_LOGIT_BIASES,
    MAX_LOGPROBS,
    MAX_SEED,
    MAX_STOP_CHARS,
    MAX_STOP_TEXTS,
    MAX_TOKEN_ID,
)

NULL: Final[JsonObject] = {"type": "null"}
_TEXT: Final[JsonObject] = {"type": "string", "minLength": 1}
_TOKEN_ID: Final[JsonObject] = {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}
_IDS: Final[JsonObject] = {"type": "array", "items": _TOKEN_ID, "minItems": 1}
_MODEL: Final[JsonObject] = {"type": "string", "minLength": 1, "maxLength": MAX_MODEL_CHARS}
_STOP: Final[JsonObject] = {"type": "string", "maxLength": MAX_STOP_CHARS}
_URL: Final[JsonObject] = {"type": "string", "pattern": "^(https?://|data:)"}
_COUNT: Final[JsonObject] = {"type": "integer", "minimum": 1}


def _or_null(*schemas: JsonObject) -> JsonObject:
    return {"anyOf": [*schemas, NULL], "default": None}


def _number(least: float, most: float | None = None, **more: Any) -> JsonObject:
    schema: JsonObject = {"type": "number", "minimum": least, **more}
    return _or_null(schema if most is None else {**schema, "maximum": most})


def _integer(least: int, most: int) -> JsonObject:
    return _or_null({"type": "integer", "minimum": least, "maximum": most})


def _several(schema: JsonObject, most: int) -> JsonObject:
    return {"type": "array", "items": schema, "maxItems": most}


_LIMIT: Final = _or_null(_COUNT, {"const": -1})
"""-1 is other servers' word for no limit."""
_PROMPT: Final[JsonObject] = {
    "anyOf": [
        _TEXT,
        {**_several(_TEXT, MAX_PROMPTS), "minItems": 1},
        _IDS,
        {**_several(_IDS, MAX_PROMPTS), "minItems": 1},
    ]
}
_SAMPLING: Final[dict[str, JsonObject]] = {
    "model": _MODEL,
    "temperature": _number(0),
    "top_p": _number(0, 1, exclusiveMinimum=0),
    "max_tokens": _LIMIT,
    "min_p": _number(0, 1),
    "repetition_penalty": _number(0, exclusiveMinimum=0),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "seed": _integer(-(2**63), MAX_SEED),
    "n": _integer(1, MAX_CHOICES),
    "stop": _or_null(_STOP, _several(_STOP, MAX_STOP_TEXTS)),
    "stop_token_ids": _or_null({"type": "array", "items": _TOKEN_ID}),
    "logit_bias": _or_null(
        {
            "type": "object",
            "propertyNames": {"pattern": "^(0|[1-9][0-9]{0,8})$"},
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
            "maxProperties": MAX_LOGIT_BIASES,
        }
    ),
}
_REFUSED_OF_CHAT: Final = ("function_call", "web_search_options", "moderation")
_REFUSED_OF_RESPONSES: Final = ("conversation", "prompt", "moderation", "response_format")


def _refused(*members: str) -> dict[str, JsonObject]:
    """Return members that may stand there and say nothing."""
    return {member: {**NULL, "default": None} for member in members}


_MEMBERS: Final[dict[str, dict[str, JsonObject]]] = {
    "ChatBody": {
        **_SAMPLING,
        **_refused(*_REFUSED_OF_CHAT),
        "max_completion_tokens": _LIMIT,
        "top_logprobs": _integer(0, MAX_LOGPROBS),
        "functions": _or_null({"type": "array", "maxItems": 0}),
        "modalities": _or_null({"const": ["text"]}),
    },
    "CompletionBody": {
        **_SAMPLING,
        "prompt": _PROMPT,
        "suffix": _or_null({"const": ""}),
        "max_tokens": _or_null({"type": "integer", "minimum": -1}),  # 0 makes nothing
        "best_of": _or_null({"const": 1}),
        "logprobs": _integer(0, MAX_LOGPROBS),
    },
    "CalledFunction": {"name": _TEXT},
    "Function": {"name": _TEXT},
    "UrlSource": {"url": _URL},
    "ImageUrl": {"url": _URL},
    "OutputFormat": {"type": {"const": "json_schema"}, "schema": {"type": "object"}},
    "EmbeddingsBody": {"model": _MODEL, "input": _PROMPT, "dimensions": _or_null(_COUNT)},
    "ResponsesBody": {
        **_SAMPLING,
        **_refused(*_REFUSED_OF_RESPONSES),
        "n": _or_null({"const": 1}),
        "max_output_tokens": _LIMIT,
        "top_logprobs": _integer(0, MAX_LOGPROBS),
        "background": _or_null({"const": False}),
    },
    "MessagesBody": {
        "model": _MODEL,
        "temperature": _number(0),
        "top_p": _number(0, 1, exclusiveMinimum=0),
        "stop_sequences": _or_null(_several(_STOP, MAX_STOP_TEXTS)),
    },
}


_SPOKEN: Final[list[JsonObject]] = [
    {"properties": {"content": _TEXT}, "required": ["content"]},
    {"properties": {"content": {"type": "array", "minItems": 1}}, "required": ["content"]},
]
"""One turn of Anthropic's at least says something; others may be empty."""
_NO_CALLS: Final = _refused("tool_calls", "function_call", "audio")
_CHAT_TURNS: Final[tuple[JsonObject, ...]] = (
    {"properties": {"role": {"enum": ["system", "developer", "user"]}, **_NO_CALLS}},
    {"properties": {"role": {"const": "assistant"}, **_refused("audio")}},
    {
        "properties": {"role": {"const": "tool"}, "tool_call_id": _TEXT, **_NO_CALLS},
        "required": ["tool_call_id"],
    },
)
"""By their role. That of `function`, which nobody should send any more, is taken and left out."""


def bind(components: dict[str, Any]) -> None:
    """Put the bounds of requests into the components of a document, as far as it has them."""
    for name, members in _MEMBERS.items():
        if name in components:
            components[name]["properties"] |= members
    if "ChatBody" in components:
        _bind_chat(components["ChatBody"]["properties"], components["ToolCall"])
    if "MessagesBody" in components:
        messages = components["MessagesBody"]["properties"]["messages"]
        messages |= {"minItems": 1, "contains": {"anyOf": _SPOKEN}}
    if "ResponsesBody" in components:
        components["ResponsesBody"]["required"].append("input")


def _bind_chat(chat: dict[str, Any], call: dict[str, Any]) -> None:
    turn = chat["messages"]["items"]
    turns = {"anyOf": [{"allOf": [turn, by_role]} for by_role in _CHAT_TURNS]}
    chat["messages"] = {"type": "array", "items": turns, "minItems": 1}
    (function,) = (each for each in call["properties"]["function"]["anyOf"] if each != NULL)
    call["properties"] |= {
        "type": {"const": "function"},
        "function": function,
        **_refused("custom"),
    }
    call["required"].append("function")
