"""The error tree. One class per thing a caller can act on; translated once at each border.

Messages read "cannot X: cause". `ErrorInfo` is the same error as data: it travels in canonical
events, in the neuron's HTTP answers and over ZeroMQ, and becomes an exception again on the
other side. A dialect turns an `ErrorInfo` into its own envelope (see `cortex_core.dialects`).
"""

from typing import ClassVar

import msgspec


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as it travels between processes and hosts."""

    code: str
    message: str
    param: str | None = None
    """The request field or config key that is at fault."""
    retry_after_s: float | None = None
    """Seconds after which a retry can succeed; None where a retry is pointless."""


class CortexError(Exception):
    """Root of every error that a user or a peer process is told about.

    Attributes:
        code: stable machine-readable name, equal on both sides of a border.
        status: HTTP status for it.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def is_for_good(self) -> bool:
        """Whether it is the server's fault and trying again does not help: somebody must look."""
        return self.status >= 500 and self.retry_after_s is None

    def info(self) -> ErrorInfo:
        """Return this error as data."""
        return ErrorInfo(self.code, self.message, self.param, self.retry_after_s)


class InternalError(CortexError):
    """A defect of ours, or a library's exception that nothing else here describes."""


class ConfigError(CortexError):
    """A configuration file, key or environment override is wrong; the process does not start."""

    code = "invalid_config"


class ProtocolError(CortexError):
    """A peer process or host sent what the protocol does not allow."""

    code = "protocol_error"
    status = 502


class InvalidRequest(CortexError):
    """The request cannot be served as it is written, here or anywhere."""

    code = "invalid_request"
    status = 400


class ContextLengthExceeded(InvalidRequest):
    """The prompt alone does not fit the model's context."""

    code = "context_length_exceeded"

    def __init__(
        self,
        message: str | None = None,
        *,
        prompt_tokens: int = 0,
        max_tokens: int = 0,
        param: str | None = "messages",
        retry_after_s: float | None = None,
    ) -> None:
        # Clients recognise these words of the Anthropic API and compact their history.
        text = message or f"prompt is too long: {prompt_tokens} tokens > {max_tokens} maximum"
        super().__init__(text, param=param, retry_after_s=retry_after_s)


class RequestTooLarge(InvalidRequest):
    """The body has more bytes than the server reads."""

    code = "request_too_large"
    status = 413


class RequestTooSlow(InvalidRequest):
    """The body takes longer than anybody waits for it."""

    code = "request_too_slow"
    status = 408


class WrongModality(InvalidRequest):
    """The request carries images, audio or files that the model cannot take."""

    code = "wrong_modality"
    status = 422


class ModelNotFound(CortexError):
    """No model of that name is in the catalogue or on the node."""

    code = "model_not_found"
    status = 404


class NotFound(CortexError):
    """No such route or object."""

    code = "not_found"
    status = 404


class PreviousResponseNotFound(InvalidRequest):
    """The response that a request goes on from is not stored, or no longer."""

    code = "previous_response_not_found"


class ThreadUnsupported(InvalidRequest):
    """The request is a turn of a conversation that the server would keep; none is kept here."""

    code = "thread_unsupported_request"


class MethodNotAllowed(InvalidRequest):
    """The route exists, but not with this HTTP method."""

    code = "method_not_allowed"
    status = 405


class Conflict(CortexError):
    """The decision was made on a stale view of the node; read its state and decide again."""

    code = "conflict"
    status = 409


class QueueFull(CortexError):
    """Every place in the queue for the model is taken."""

    code = "queue_full"
    status = 429


class OutOfMemory(CortexError):
    """The model, or the request, does not fit the device; the message has the arithmetic."""

    code = "out_of_memory"
    status = 503


class ModelLoadFailed(CortexError):
    """The model cannot be fetched, read or loaded."""

    code = "model_load_failed"
    status = 503


class ModelNotLoaded(CortexError):
    """The node does not have the model in memory; load it, or ask another replica."""

    code = "model_not_loaded"
    status = 409


class ModelUnloaded(CortexError):
    """An operator took the model out of memory while it served the request."""

    code = "model_unloaded"
    status = 503


class NodeUnavailable(CortexError):
    """The node cannot be reached or went away while answering."""

    code = "node_unavailable"
    status = 503


class DeviceFailed(CortexError):
    """The device actor died or hung while it held the request."""

    code = "device_failed"
    status = 503


class Overloaded(CortexError):
    """There is no capacity now; a retry after `retry_after_s` can succeed."""

    code = "service_unavailable"
    status = 503


class ShuttingDown(CortexError):
    """The daemon drains and takes no new work."""

    code = "shutting_down"
    status = 503


class Timeout(CortexError):
    """A bounded wait ran out."""

    code = "timeout"
    status = 504


def _tree(root: type[CortexError]) -> dict[str, type[CortexError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


_BY_CODE: dict[str, type[CortexError]] = _tree(CortexError)


def error_from_info(info: ErrorInfo) -> CortexError:
    """Return the exception that `info` describes; an unknown code becomes `InternalError`."""
    kind = _BY_CODE.get(info.code, InternalError)
    return kind(info.message, param=info.param, retry_after_s=info.retry_after_s)


def status_of(info: ErrorInfo) -> int:
    """Return the HTTP status for an error that came as data."""
    return _BY_CODE.get(info.code, InternalError).status
