"""Parts of an OpenAI answer that chat and completions share, and the whole answer of a chat."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from cortex_core.canonical import FinishReason, TokenLogprob, Usage
from cortex_core.dialects.collector import Answer, Choice

FINISH_REASONS: Final[dict[FinishReason, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    # OpenAI has no word for it; this one tells a client that the answer is not whole.
    "cancelled": "length",
}


class PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int


class CompletionDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int


class UsageBody(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class TokenBody(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: "list[TokenBody] | UnsetType" = UNSET


class LogprobsBody(msgspec.Struct, frozen=True):
    content: list[TokenBody]
    refusal: None = None


class AnsweredFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class AnsweredCall(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    type: Literal["function"] = "function"
    function: AnsweredFunction


class AnsweredMessage(msgspec.Struct, frozen=True, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[AnsweredCall] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, frozen=True):
    index: int
    message: AnsweredMessage
    logprobs: LogprobsBody | None
    finish_reason: str


class ChatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a chat that is not streamed."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ChatChoice]
    usage: UsageBody
    service_tier: str | UnsetType = UNSET


def chat_answer(
    answer: Answer, *, answer_id: str, created: int, model: str, service_tier: str | None
) -> ChatAnswer:
    """Return the whole answer; `model` is the client's own word, a tier of None is not told."""
    return ChatAnswer(
        id=answer_id,
        created=created,
        model=model,
        system_fingerprint=answer.started.weights_id,
        choices=[_choice(index, choice) for index, choice in enumerate(answer.choices)],
        usage=usage_json(answer.usage),
        service_tier=service_tier or UNSET,
    )


def usage_json(usage: Usage) -> UsageBody:
    """Return usage as it stands in answers and in a stream's last chunk."""
    return UsageBody(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptDetails(usage.cached_tokens),
        completion_tokens_details=CompletionDetails(usage.reasoning_tokens),
    )


def chat_logprobs_json(logprobs: Sequence[TokenLogprob]) -> LogprobsBody:
    """Return tokens with their alternatives in the form of chat answers."""
    return LogprobsBody([_token(each, [_token(top) for top in each.top]) for each in logprobs])


def _token(logprob: TokenLogprob, top: list[TokenBody] | UnsetType = UNSET) -> TokenBody:
    return TokenBody(logprob.text, logprob.logprob, list(logprob.spelled), top)


def _choice(index: int, choice: Choice) -> ChatChoice:
    logprobs = chat_logprobs_json(choice.logprobs) if choice.logprobs else None
    return ChatChoice(index, _message(choice), logprobs, FINISH_REASONS[choice.finished.reason])


def _message(choice: Choice) -> AnsweredMessage:
    text = choice.text
    calls = [
        AnsweredCall(id=call.call_id, function=AnsweredFunction(call.name, call.text))
        for call in choice.calls
    ]
    return AnsweredMessage(
        content=None if calls and not text else text,
        reasoning_content=choice.reasoning or UNSET,
        tool_calls=calls or UNSET,
    )
