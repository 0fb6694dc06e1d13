"""The error envelope of every OpenAI dialect, and the headers beside it."""

from typing import Any

from cortex_core.dialects.base import Reply
from cortex_core.dialects.retry_hints import retry_headers
from cortex_core.dialects.sse import data_frame, json_bytes
from cortex_core.errors import ErrorInfo, status_of
from cortex_core.ids import RequestId

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


def error_reply(error: ErrorInfo, *, request_id: RequestId) -> Reply:
    """Return the whole answer for an error before the first byte of a response."""
    status = status_of(error)
    headers = response_headers(request_id) | retry_headers(error, status)
    return Reply(status, json_bytes(_envelope(error)), headers)


def error_frame(error: ErrorInfo) -> bytes:
    """Return the frame that ends a stream; no `[DONE]` follows it."""
    return data_frame(json_bytes(_envelope(error)))


def response_headers(request_id: RequestId) -> dict[str, str]:
    """Return the headers that every answer of the OpenAI dialects carries."""
    return {"x-request-id": request_id}


def _envelope(error: ErrorInfo) -> dict[str, Any]:
    status = status_of(error)
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    return {
        "error": {
            "message": error.message,
            "type": kind,
            "param": error.param,
            "code": error.code,
        }
    }
