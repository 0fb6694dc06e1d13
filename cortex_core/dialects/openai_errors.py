"""The error envelope of every OpenAI dialect, and the headers beside it."""

import re

import msgspec

from cortex_core.dialects.base import Reply
from cortex_core.dialects.retry_hints import retry_headers
from cortex_core.dialects.sse import data_frame, json_bytes
from cortex_core.errors import ContextLengthExceeded, ErrorInfo, status_of
from cortex_core.ids import RequestId

_TYPES = {403: "permission_error", 409: "conflict_error", 429: "rate_limit_error"}
"""By status; others below 500 are `invalid_request_error`, as they are at OpenAI."""
_TOO_LONG = re.compile(r"(?P<length>\d+) tokens > (?P<limit>\d+) maximum(;|$)")


class ErrorBody(msgspec.Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str
    request_id: str
    """Ours beside OpenAI's own members: a stream's error has no headers to be found by."""


class ErrorEnvelope(msgspec.Struct, frozen=True):
    error: ErrorBody


class OpenAIReplies:
    """Base of the OpenAI dialects: what all of them answer beside their own bodies."""

    def encode_error(self, error: ErrorInfo, *, request_id: RequestId) -> Reply:
        """Return the answer for an error before the first byte of a response."""
        status = status_of(error)
        headers = response_headers(request_id) | retry_headers(error, status)
        return Reply(status, json_bytes(_envelope(error, request_id)), headers)

    def response_headers(self, request_id: RequestId) -> dict[str, str]:
        """Return the headers that successful answers carry."""
        return response_headers(request_id)


def error_frame(error: ErrorInfo, *, request_id: RequestId) -> bytes:
    """Return the frame that ends a stream; no `[DONE]` follows it."""
    return data_frame(json_bytes(_envelope(error, request_id)))


def response_headers(request_id: RequestId) -> dict[str, str]:
    """Return the headers that every answer of the OpenAI dialects carries."""
    return {"x-request-id": request_id}


def _envelope(error: ErrorInfo, request_id: RequestId) -> ErrorEnvelope:
    status = status_of(error)
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    return ErrorEnvelope(ErrorBody(_message(error), kind, error.param, error.code, request_id))


def _message(error: ErrorInfo) -> str:
    """Return the message; of a prompt that is too long in the words that OpenAI's clients know."""
    found = _TOO_LONG.search(error.message)
    if error.code != ContextLengthExceeded.code or found is None:
        return error.message
    what = (error.param or "messages").partition("[")[0]
    return (
        f"This model's maximum context length is {found['limit']} tokens. However, your {what} "
        f"resulted in {found['length']} tokens. Please reduce the length of the {what}. "
        f"({error.message})"
    )
