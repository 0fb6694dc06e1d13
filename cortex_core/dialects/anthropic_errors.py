"""The error envelope of the Anthropic dialect, and the headers beside it."""

from cortex_core.dialects.base import Reply
from cortex_core.dialects.retry_hints import retry_headers
from cortex_core.dialects.sse import json_bytes, named_frame
from cortex_core.errors import ErrorInfo, ThreadUnsupported, status_of
from cortex_core.ids import RequestId

_FORMAT, _OWN_FORMAT = "response_format", "output_config.format"
"""What nodes, and this dialect, call the format of an answer."""
_TOO_MANY, _OVERLOADED = 429, 529
_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    _TOO_MANY: "rate_limit_error",
    504: "timeout_error",
    _OVERLOADED: "overloaded_error",
}


def error_reply(error: ErrorInfo, *, request_id: RequestId) -> Reply:
    """Return the whole answer for an error before the first byte of a response."""
    status = _status(error)
    headers = response_headers(request_id) | retry_headers(error, status)
    return Reply(status, _envelope(error, status, request_id), headers)


def error_frame(error: ErrorInfo, *, request_id: RequestId) -> bytes:
    """Return the frame that ends a stream.

    An error that comes so has no status. After the word `overloaded_error` Claude Code waits and
    asks again; after any other it asks once more at once, without a stream.
    """
    status = _status(error)
    if status == _TOO_MANY and error.retry_after_s is not None:
        status = _OVERLOADED
    return named_frame(b"error", _envelope(error, status, request_id))


def response_headers(request_id: RequestId) -> dict[str, str]:
    """Return the headers that every answer of the dialect carries."""
    return {"request-id": f"req_{request_id}", "x-request-id": request_id}


def _status(error: ErrorInfo) -> int:
    status = status_of(error)
    if status == 422:
        return 400
    if status == 503 and error.retry_after_s is not None:
        return _OVERLOADED
    return status


def _envelope(error: ErrorInfo, status: int, request_id: RequestId) -> bytes:
    message = error.message
    if error.param == _FORMAT:
        message = message.replace(_FORMAT, _OWN_FORMAT)
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    body: dict[str, object] = {"type": kind, "message": message}
    if error.code == ThreadUnsupported.code:
        # Tool runners of the SDKs send the whole conversation after this, and do not ask again.
        body["details"] = {"error_code": error.code, "unsupported": [error.param]}
    return json_bytes({"type": "error", "error": body, "request_id": f"req_{request_id}"})
