"""The body of `POST /v1/responses`, and what its members ask for beside a conversation."""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from cortex_core.canonical import JsonObject, ResponseFormat
from cortex_core.dialects.openai_options import (
    GrammarFormat,
    JsonObjectFormat,
    JsonSchemaFormat,
    JsonSchemaResponse,
    RegexFormat,
    SharedOptions,
    TextFormat,
    TokenLimit,
    format_from,
    whole_limit,
)
from cortex_core.dialects.openai_responses_items import references_in
from cortex_core.dialects.openai_responses_tools import (
    ToolsAsked,
    WireTool,
    WireToolChoice,
    choice_json,
    tool_json,
)
from cortex_core.dialects.openai_wire import LeftOut
from cortex_core.dialects.reading import refuse
from cortex_core.dialects.service_tiers import left_out_tier, tier_from

WITH_LOGPROBS: Final = "message.output_text.logprobs"
_INCLUDED: Final = (WITH_LOGPROBS, "reasoning.encrypted_content")
"""What `include` may name; reasoning is never encrypted here, and always there."""
_WITHOUT_EFFECT: Final = (
    "access_programs",
    "background_options",
    "context_management",
    "image",
    "max_tool_calls",
    "prompt_cache_options",
    "prompt_cache_retention",
)


class JsonSchemaText(JsonSchemaFormat, frozen=True, tag="json_schema"):
    """Chat has these members one level deeper."""

    name: str = "answer"
    description: str | None = None


class WireText(msgspec.Struct, frozen=True):
    format: TextFormat | JsonObjectFormat | JsonSchemaText | RegexFormat | GrammarFormat | None = (
        None
    )
    verbosity: str | None = None


class WireReasoning(msgspec.Struct, frozen=True):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    context: LeftOut = None
    mode: LeftOut = None


class ResponsesBody(SharedOptions, frozen=True, kw_only=True):
    """The body, by its wire names: all that OpenAI documents. Unknown fields are ignored."""

    input: str | list[JsonObject] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    max_output_tokens: TokenLimit = None
    max_tool_calls: int | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    tools: list[WireTool] | None = None
    tool_choice: WireToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: WireReasoning | None = None
    text: WireText | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    background: bool | None = None
    conversation: str | JsonObject | None = None
    prompt: JsonObject | None = None
    moderation: JsonObject | None = None
    access_programs: LeftOut = None
    background_options: LeftOut = None
    context_management: LeftOut = None
    image: LeftOut = None
    prompt_cache_options: LeftOut = None
    prompt_cache_retention: LeftOut = None

    @property
    def references(self) -> tuple[str, ...]:
        """Ids of stored items that the input names."""
        return references_in(self.input)


def refuse_what_is_not_served(wire: ResponsesBody) -> None:
    """Raise `InvalidRequest` where a request asks for what an answer could not do without."""
    if wire.background:
        raise refuse("background", "not served here; ask for a stream, and stay connected")
    if wire.conversation is not None:
        raise refuse("conversation", "none are kept here; go on with previous_response_id")
    if wire.prompt is not None:
        raise refuse("prompt", "no prompts are stored here; send instructions and input")
    if wire.moderation is not None:
        raise refuse("moderation", "not supported: nothing is moderated here")
    if wire.n is not None and wire.n != 1:
        raise refuse("n", f"a response is one answer, got {wire.n}; ask several times")
    if wire.response_format is not None:
        raise refuse("response_format", "chat's word for it; use text.format")
    if wire.input is None and not wire.previous_response_id:
        raise refuse("input", "this field is required")


def without_effect(wire: ResponsesBody) -> tuple[str, ...]:
    """Return the JSON paths of what is asked for beside the conversation and left out."""
    of_body = [name for name in _WITHOUT_EFFECT if getattr(wire, name) is not None]
    reasoning = wire.reasoning or WireReasoning()
    of_text = ["text.verbosity"] if wire.text and wire.text.verbosity is not None else []
    of_reasoning = [f"reasoning.{name}" for name in ("context", "mode") if getattr(reasoning, name)]
    included = enumerate(wire.include or ())
    others = [f"include[{place}]" for place, name in included if name not in _INCLUDED]
    of_tier = left_out_tier(wire.service_tier)
    return (*of_body, *of_reasoning, *of_text, *of_tier, *others)


def form_of(wire: ResponsesBody) -> ResponseFormat | None:
    """Return the form that the answer is held to.

    Raises:
        InvalidRequest: `json_schema` comes without a schema.
    """
    wanted = wire.text.format if wire.text else None
    asked = JsonSchemaResponse(wanted) if isinstance(wanted, JsonSchemaText) else wanted
    return format_from(asked, schema_place="text.format.schema")


def max_tokens_of(wire: ResponsesBody) -> tuple[str, TokenLimit]:
    """Return the limit and the client's word for it; chat's is taken where it stands alone."""
    if wire.max_output_tokens is None and wire.max_tokens is not None:
        return "max_tokens", wire.max_tokens
    return "max_output_tokens", wire.max_output_tokens


def logprobs_of(wire: ResponsesBody) -> int | None:
    """Return the canonical count of log probabilities."""
    if wire.top_logprobs or WITH_LOGPROBS in (wire.include or ()):
        return wire.top_logprobs or 0
    return None


def summary_of(wire: ResponsesBody) -> str | None:
    """Return which summary of thoughts is asked for, None for the thoughts themselves."""
    return (wire.reasoning.summary or wire.reasoning.generate_summary) if wire.reasoning else None


def repeated(wire: ResponsesBody, asked: ToolsAsked, warnings: Sequence[str]) -> JsonObject:
    """Return what a response repeats; `warnings` is a member of our own, where there are any."""
    text = wire.text or WireText()
    members: dict[str, Any] = {
        "model": wire.model,
        "background": False,
        "instructions": wire.instructions,
        "max_output_tokens": whole_limit(wire.max_output_tokens, place="max_output_tokens"),
        "max_tool_calls": wire.max_tool_calls,
        "metadata": wire.metadata or {},
        "parallel_tool_calls": wire.parallel_tool_calls is not False,
        "previous_response_id": wire.previous_response_id or None,
        "prompt_cache_key": wire.prompt_cache_key,
        "reasoning": {
            "effort": wire.reasoning.effort if wire.reasoning else None,
            "summary": summary_of(wire),
        },
        "safety_identifier": wire.safety_identifier,
        "service_tier": tier_from(wire.service_tier).name,
        "store": wire.store is not False,
        "temperature": wire.temperature,
        "text": {"format": text.format or TextFormat(), "verbosity": text.verbosity},
        "tool_choice": choice_json(asked.choice),
        "tools": [tool_json(tool) for tool in asked.tools],
        "top_logprobs": wire.top_logprobs or 0,
        "top_p": wire.top_p,
        "truncation": wire.truncation or "disabled",
        "user": wire.user,
    }
    return members | ({"warnings": list(warnings)} if warnings else {})
