"""Types of answers that are not written from types, for the OpenAPI document alone.

They take no field that they do not name, so that a test which reads real answers with them finds
what they lack.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from cortex_core.canonical import JsonObject
from cortex_core.dialects.openai_options import (
    GrammarFormat,
    JsonObjectFormat,
    RegexFormat,
    TextFormat,
)
from cortex_core.dialects.openai_responses_body import JsonSchemaText


class Described(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what is described here."""


class EmbeddingVector(Described, frozen=True):
    """Numbers, or float32 little endian as base64 where `encoding_format` asked for it."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Described, frozen=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(Described, frozen=True):
    """One vector for each input, in their order."""

    object: Literal["list"]
    data: list[EmbeddingVector]
    model: str
    usage: EmbeddingUsage


class UnsupportedDetails(Described, frozen=True):
    error_code: str
    unsupported: list[str]


class AnthropicError(Described, frozen=True):
    type: str
    message: str
    details: UnsupportedDetails | UnsetType = UNSET


class AnthropicErrorEnvelope(Described, frozen=True):
    type: Literal["error"]
    error: AnthropicError
    request_id: str


class TokenCount(Described, frozen=True):
    input_tokens: int


class SaidText(Described, frozen=True, tag="text"):
    text: str


class SaidThinking(Described, frozen=True, tag="thinking"):
    thinking: str
    signature: str


class SaidToolUse(Described, frozen=True, tag="tool_use"):
    id: str
    name: str
    input: JsonObject


class ThinkingTokens(Described, frozen=True):
    thinking_tokens: int


class MessageUsage(Described, frozen=True):
    """The tokens of the prompt are the sum of the first three."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    service_tier: Literal["standard"]
    output_tokens_details: ThinkingTokens | UnsetType = UNSET


class AppliedEdits(Described, frozen=True):
    applied_edits: list[JsonObject]


class MessageAnswer(Described, frozen=True):
    """A turn of the assistant."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[SaidText | SaidThinking | SaidToolUse]
    stop_reason: Literal[
        "end_turn",
        "max_tokens",
        "stop_sequence",
        "tool_use",
        "refusal",
        "model_context_window_exceeded",
    ]
    stop_sequence: str | None
    usage: MessageUsage
    context_management: AppliedEdits | UnsetType = UNSET


class AnsweredText(Described, frozen=True, tag="output_text"):
    text: str
    annotations: list[JsonObject]
    logprobs: list[JsonObject]


class SummaryText(Described, frozen=True, tag="summary_text"):
    text: str


class ReasoningText(Described, frozen=True, tag="reasoning_text"):
    text: str


ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputMessage(Described, frozen=True, tag="message"):
    id: str
    status: ItemStatus
    role: Literal["assistant"]
    content: list[AnsweredText]


class OutputCall(Described, frozen=True, tag="function_call"):
    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class OutputReasoning(Described, frozen=True, tag="reasoning"):
    id: str
    status: ItemStatus
    summary: list[SummaryText]
    encrypted_content: str | None
    content: list[ReasoningText] | UnsetType = UNSET


class CachedTokens(Described, frozen=True):
    cached_tokens: int
    cache_write_tokens: int


class ReasoningTokens(Described, frozen=True):
    reasoning_tokens: int


class ResponseUsage(Described, frozen=True):
    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class ResponseError(Described, frozen=True):
    code: str
    message: str


class WhyIncomplete(Described, frozen=True):
    reason: Literal["max_output_tokens", "content_filter"]


class RepeatedReasoning(Described, frozen=True):
    effort: str | None
    summary: str | None


class RepeatedText(Described, frozen=True):
    format: TextFormat | JsonObjectFormat | JsonSchemaText | RegexFormat | GrammarFormat
    verbosity: str | None


class RepeatedTool(Described, frozen=True, tag="function"):
    name: str
    description: str | None
    parameters: JsonObject | None
    strict: bool


class RepeatedChoice(Described, frozen=True, tag="function"):
    name: str


class ResponseAnswer(Described, frozen=True):
    """A response; what it was asked with is repeated in it."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseError | None
    incomplete_details: WhyIncomplete | None
    output: list[OutputMessage | OutputCall | OutputReasoning]
    usage: ResponseUsage | None
    model: str
    background: Literal[False]
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: RepeatedReasoning
    safety_identifier: str | None
    service_tier: Literal["default", "flex", "priority"]
    store: bool
    temperature: float | None
    text: RepeatedText
    tool_choice: Literal["auto", "none", "required"] | RepeatedChoice
    tools: list[RepeatedTool]
    top_logprobs: int
    top_p: float | None
    truncation: Literal["auto", "disabled"]
    user: str | None
    warnings: list[str] | UnsetType = UNSET
    """What was asked for and left out; ours beside OpenAI's own members."""


class DeletedResponse(Described, frozen=True):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


class KeptItem(msgspec.Struct, frozen=True):
    """An item as its client sent it, or as it was answered, with the members of its type."""

    id: str
    type: Literal["message", "function_call", "function_call_output", "reasoning"]
    status: str


class InputItems(Described, frozen=True):
    object: Literal["list"]
    data: list[KeptItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class OpenApiDocument(Described, frozen=True):
    openapi: str
    info: JsonObject
    paths: dict[str, Any]
    components: JsonObject
