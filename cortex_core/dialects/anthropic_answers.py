"""Parts of an Anthropic answer that streams and whole answers share."""

from typing import Any, Final

from cortex_core.canonical import Finished, FinishReason, Usage

THINKING_SIGNATURE: Final = "cortex"
"""Clients drop thinking without a signature from their history, and never look inside it."""

_STOP_REASONS: Final[dict[FinishReason, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    # Anthropic has no word for it; this one tells a client that the answer is not whole.
    "cancelled": "max_tokens",
}


def stop_reason(finished: Finished) -> str:
    """Return why the model stopped, in the dialect's words."""
    if finished.reason == "stop" and finished.stop_sequence is not None:
        return "stop_sequence"
    return _STOP_REASONS[finished.reason]


def usage_json(usage: Usage) -> dict[str, Any]:
    """Return usage; what the cache held is not counted among the dialect's input tokens."""
    counts: dict[str, Any] = {
        "input_tokens": max(0, usage.prompt_tokens - usage.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }
    if usage.reasoning_tokens:
        counts["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return counts


def message_json(
    message_id: str,
    model: str,
    *,
    content: list[dict[str, Any]],
    usage: Usage,
    finished: Finished | None = None,
) -> dict[str, Any]:
    """Return a message; one that has not finished is the head of a stream."""
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": None if finished is None else stop_reason(finished),
        "stop_sequence": None if finished is None else finished.stop_sequence,
        "usage": usage_json(usage),
    }
