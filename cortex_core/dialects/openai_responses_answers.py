"""Parts of an answer of `/v1/responses` that streams and whole answers share."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from cortex_core.canonical import Finished, FinishReason, JsonObject, TokenLogprob, Usage
from cortex_core.dialects.collector import Answer, CallRun, ReasoningRun, Run, TextRun
from cortex_core.dialects.openai_answers import chat_logprobs_json
from cortex_core.errors import ErrorInfo, status_of

IN_PROGRESS: Final = "in_progress"
COMPLETED: Final = "completed"
INCOMPLETE: Final = "incomplete"

_WHY_INCOMPLETE: Final[dict[FinishReason, str]] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
    # The dialect has no word for it; this one tells a client that the answer is not whole.
    "cancelled": "max_output_tokens",
}
_ITEM_PREFIXES: Final = {TextRun: "msg", ReasoningRun: "rs", CallRun: "fc"}

# Words that clients look for; any other error is `server_error` or `invalid_prompt`.
_ERROR_CODES: Final = {
    "context_length_exceeded": "context_length_exceeded",
    "queue_full": "rate_limit_exceeded",
}


def response_json(
    asked: JsonObject,
    *,
    status: str,
    output: Sequence[JsonObject] = (),
    usage: Usage | None = None,
    finished: Finished | None = None,
    error: ErrorInfo | None = None,
) -> dict[str, Any]:
    """Return a response; `asked` holds what it repeats of its request."""
    why = _WHY_INCOMPLETE.get(finished.reason) if finished is not None else None
    return asked | {
        "status": status,
        "error": None if error is None else error_json(error),
        "incomplete_details": None if why is None else {"reason": why},
        "output": list(output),
        "usage": None if usage is None else usage_json(usage),
    }


def status_after(finished: Finished) -> str:
    """Return the status of an answer that ended so."""
    return INCOMPLETE if finished.reason in _WHY_INCOMPLETE else COMPLETED


def usage_json(usage: Usage) -> dict[str, Any]:
    """Return usage as it stands in answers."""
    details = {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0}
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": details,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def error_json(error: ErrorInfo) -> dict[str, Any]:
    """Return an error as a response carries it."""
    named = _ERROR_CODES.get(error.code)
    code = named or ("server_error" if status_of(error) >= 500 else "invalid_prompt")
    message = error.message
    if code == "rate_limit_exceeded" and error.retry_after_s is not None:
        # codex reads the time to wait out of these words.
        message = f"{message}; try again in {error.retry_after_s:.1f}s"
    return {"code": code, "message": message}


def item_id(run: Run, request_id: str, index: int) -> str:
    """Return the id of output item number `index`."""
    return f"{_ITEM_PREFIXES[type(run)]}_{request_id}_{index}"


def item_json(run: Run, own_id: str, *, status: str, summarised: bool) -> JsonObject:
    """Return an output item that holds something.

    `summarised` says that the client asked for a summary of thoughts: the thoughts are it.
    """
    match run:
        case TextRun(text=text, logprobs=logprobs):
            part = text_part(text, logprobs)
            fields: JsonObject = {"type": "message", "role": "assistant", "content": [part]}
        case ReasoningRun(text=text):
            fields = {"type": "reasoning", **thoughts(text, summarised=summarised)}
        case CallRun(call_id=call_id, name=name, text=arguments):
            call = {"call_id": call_id, "name": name, "arguments": arguments}
            fields = {"type": "function_call", **call}
    return {"id": own_id, "status": status} | fields


def begun_json(run: Run, own_id: str, *, summarised: bool) -> JsonObject:
    """Return an output item that has only begun, whatever `run` holds already."""
    item = item_json(run, own_id, status=IN_PROGRESS, summarised=summarised)
    nothing: JsonObject = {"content": [], "summary": [], "arguments": ""}
    return item | {key: value for key, value in nothing.items() if key in item}


def whole_json(
    asked: JsonObject, answer: Answer, *, request_id: str, summarised: bool
) -> dict[str, Any]:
    """Return the response at its end."""
    choice = answer.choices[0]
    status = status_after(choice.finished)
    output = []
    for index, run in enumerate(choice.runs):
        last = index == len(choice.runs) - 1
        output.append(
            item_json(
                run,
                item_id(run, request_id, index),
                status=status if last else COMPLETED,
                summarised=summarised,
            )
        )
    return response_json(
        asked, status=status, output=output, usage=answer.usage, finished=choice.finished
    )


def text_part(text: str, logprobs: Sequence[TokenLogprob] = ()) -> JsonObject:
    """Return the content part of a message."""
    return {
        "type": "output_text",
        "text": text,
        "annotations": [],
        "logprobs": logprobs_json(logprobs),
    }


def logprobs_json(logprobs: Sequence[TokenLogprob]) -> list[JsonObject]:
    """Return tokens with their alternatives."""
    tokens: list[JsonObject] = msgspec.to_builtins(chat_logprobs_json(logprobs).content)
    return tokens


def thoughts(text: str, *, summarised: bool) -> JsonObject:
    """Return the members of a reasoning item that hold what was thought."""
    if summarised:
        return {"summary": [{"type": "summary_text", "text": text}], "encrypted_content": None}
    content = [{"type": "reasoning_text", "text": text}]
    return {"summary": [], "content": content, "encrypted_content": None}
