"""Parts of an Anthropic answer that streams and whole answers share."""

from typing import Any, Final, NamedTuple

import msgspec

from cortex_core.canonical import Finished, FinishReason, JsonObject, Usage
from cortex_core.decoding import UNDECODABLE
from cortex_core.dialects.anthropic_thinking import SIGNATURE, seal
from cortex_core.dialects.collector import CallRun, ReasoningRun, TextRun

_STOP_REASONS: Final[dict[FinishReason, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    # Anthropic has no word for it; this one tells a client that the answer is not whole.
    "cancelled": "max_tokens",
}


SERVICE_TIER: Final = "standard"
"""Of each answer: the dialect's other words are for what was bought or is not answered at once."""


class AnswerForm(NamedTuple):
    """What an answer has to know of its request; see `DecodedMessages`."""

    max_tokens: int | None
    thoughts_omitted: bool
    manages_context: bool

    def ending(self, finished: Finished, usage: Usage) -> JsonObject:
        """Return how the answer ended, in the dialect's words."""
        reason = _STOP_REASONS[finished.reason]
        if finished.reason == "stop" and finished.stop_sequence is not None:
            reason = "stop_sequence"
        elif finished.reason == "length" and self._had_room(usage):
            reason = "model_context_window_exceeded"
        return {"stop_reason": reason, "stop_sequence": finished.stop_sequence}

    def extras(self) -> JsonObject:
        """Return members of the answer that only some requests call for."""
        return {"context_management": {"applied_edits": []}} if self.manages_context else {}

    def signature(self, thought: str) -> str:
        """Return what a thinking block is signed with."""
        return seal(thought) if self.thoughts_omitted else SIGNATURE

    def _had_room(self, usage: Usage) -> bool:
        # Nothing but the request's own limit and the context makes an answer too long.
        return self.max_tokens is None or usage.completion_tokens < self.max_tokens


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
    content: list[JsonObject],
    usage: Usage,
    ending: JsonObject | None = None,
) -> JsonObject:
    """Return a message; one without an ending is the head of a stream."""
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        **(ending or {"stop_reason": None, "stop_sequence": None}),
        "usage": {**usage_json(usage), "service_tier": SERVICE_TIER},
    }


def content_json(run: TextRun | ReasoningRun | CallRun, form: AnswerForm) -> JsonObject:
    """Return the content block of a run."""
    match run:
        case TextRun(text=text):
            return {"type": "text", "text": text}
        case ReasoningRun(text=text):
            shown = "" if form.thoughts_omitted else text
            return {"type": "thinking", "thinking": shown, "signature": form.signature(text)}
        case CallRun(call_id=call_id, name=name, text=arguments):
            return {
                "type": "tool_use",
                "id": call_id,
                "name": name,
                "input": _input_json(arguments),
            }


def _input_json(arguments: str) -> JsonObject | msgspec.Raw:
    text = arguments or "{}"
    try:
        msgspec.json.decode(text, type=dict[str, Any])
    except UNDECODABLE:
        # Cut off by max_tokens. The dialect allows an object only: the text is kept inside one.
        return {"arguments": arguments}
    # As it stands: what can just be read may be nested too deeply to be written.
    return msgspec.Raw(text.encode())
