"""Parts of an OpenAI answer that chat and completions share."""

from collections.abc import Sequence
from typing import Any

from cortex_core.canonical import FinishReason, TokenLogprob, Usage

FINISH_REASONS: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    # OpenAI has no word for it; this one tells a client that the answer is not whole.
    "cancelled": "length",
}


def usage_json(usage: Usage) -> dict[str, Any]:
    """Return usage as it stands in answers and in a stream's last chunk."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def chat_logprobs_json(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return tokens with their alternatives in the form of chat answers."""
    return {
        "content": [
            _token_json(each) | {"top_logprobs": [_token_json(top) for top in each.top]}
            for each in logprobs
        ]
    }


def _token_json(logprob: TokenLogprob) -> dict[str, Any]:
    # A replacement character stands for part of a character: its real bytes are not known here.
    whole = "\ufffd" not in logprob.text
    return {
        "token": logprob.text,
        "logprob": logprob.logprob,
        "bytes": list(logprob.text.encode()) if whole else None,
    }
