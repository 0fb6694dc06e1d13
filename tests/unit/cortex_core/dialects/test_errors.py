"""Errors in each dialect's envelope, read by the SDKs."""

import json
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core import errors
from cortex_core.dialects.anthropic_errors import error_frame
from cortex_core.dialects.base import Dialect
from cortex_core.embedding_limits import check_lengths
from cortex_core.errors import ContextLengthExceeded, CortexError, ErrorInfo
from cortex_core.ids import RequestId
from tests.unit.cortex_core.dialects.event_streams import MODEL
from tests.unit.cortex_core.dialects.fixture_files import DIALECTS
from tests.unit.cortex_core.dialects.sdk_clients import (
    MESSAGES,
    anthropic_client,
    openai_client,
    recorder,
)

REQUEST_ID = RequestId("r1")
CHAT = DIALECTS["openai_chat"]
ANTHROPIC = DIALECTS["anthropic_messages"]


def ask(dialect: Dialect, error: ErrorInfo, *, max_retries: int = 0) -> tuple[Any, int]:
    """The exception that the dialect's SDK raises for `error`, and how often it asked."""
    source = recorder(dialect.encode_error(error, request_id=REQUEST_ID))
    raised: Any = None
    try:
        if dialect is ANTHROPIC:
            anthropic_client(source, max_retries=max_retries).messages.create(
                model=MODEL, messages=MESSAGES, max_tokens=9
            )
        else:
            openai_client(source, max_retries=max_retries).chat.completions.create(
                model=MODEL, messages=MESSAGES
            )
    except (openai.APIStatusError, anthropic.APIStatusError) as error_of_sdk:
        raised = error_of_sdk
    return raised, len(source.requests)


@pytest.mark.parametrize(
    ("error", "kind", "status", "type_"),
    [
        (
            errors.InvalidRequest("cannot a: b", param="messages"),
            "BadRequestError",
            400,
            "invalid_request_error",
        ),
        (
            ContextLengthExceeded(prompt_tokens=9, max_tokens=8),
            "BadRequestError",
            400,
            "invalid_request_error",
        ),
        (errors.ModelNotFound("cannot a: b"), "NotFoundError", 404, "invalid_request_error"),
        (errors.RequestTooLarge("cannot a: b"), "APIStatusError", 413, "invalid_request_error"),
        (
            errors.WrongModality("cannot a: b"),
            "UnprocessableEntityError",
            422,
            "invalid_request_error",
        ),
        (errors.QueueFull("cannot a: b"), "RateLimitError", 429, "rate_limit_error"),
        (errors.InternalError("cannot a: b"), "InternalServerError", 500, "server_error"),
        (errors.Overloaded("cannot a: b"), "InternalServerError", 503, "server_error"),
        (errors.Timeout("cannot a: b"), "InternalServerError", 504, "server_error"),
    ],
)
def test_openai_clients_raise_the_right_error(
    error: CortexError, kind: str, status: int, type_: str
) -> None:
    raised, _ = ask(CHAT, error.info())
    assert isinstance(raised, getattr(openai, kind))
    assert raised.status_code == status
    assert raised.type == type_
    assert raised.code == error.code
    assert raised.param == error.param
    assert raised.body["request_id"] == REQUEST_ID
    if not isinstance(error, ContextLengthExceeded):
        assert raised.body["message"] == error.message
    assert raised.request_id == REQUEST_ID


@pytest.mark.parametrize(
    ("error", "status", "type_"),
    [
        (errors.InvalidRequest("cannot a: b", param="messages"), 400, "invalid_request_error"),
        (errors.ModelNotFound("cannot a: b"), 404, "not_found_error"),
        (errors.MethodNotAllowed("cannot a: b"), 405, "invalid_request_error"),
        (errors.RequestTooLarge("cannot a: b"), 413, "request_too_large"),
        (errors.WrongModality("cannot a: b"), 400, "invalid_request_error"),
        (errors.QueueFull("cannot a: b", retry_after_s=1), 429, "rate_limit_error"),
        (errors.InternalError("cannot a: b"), 500, "api_error"),
        (errors.ModelLoadFailed("cannot a: b"), 503, "api_error"),
        (errors.Overloaded("cannot a: b", retry_after_s=1), 529, "overloaded_error"),
        (errors.ShuttingDown("cannot a: b", retry_after_s=15), 529, "overloaded_error"),
        (errors.Timeout("cannot a: b"), 504, "timeout_error"),
    ],
)
def test_anthropic_clients_raise_the_right_error(
    error: CortexError, status: int, type_: str
) -> None:
    raised, _ = ask(ANTHROPIC, error.info())
    assert isinstance(raised, anthropic.APIStatusError)
    assert raised.status_code == status
    assert raised.body == {
        "type": "error",
        "error": {"type": type_, "message": error.message},
        "request_id": "req_r1",
    }
    assert raised.request_id == "req_r1"


@pytest.mark.parametrize(
    ("error", "type_"),
    [
        (errors.QueueFull("cannot a: b", retry_after_s=1), "overloaded_error"),
        (errors.QueueFull("cannot a: b"), "rate_limit_error"),
        (errors.DeviceFailed("cannot a: b", retry_after_s=1), "overloaded_error"),
        (errors.InternalError("cannot a: b"), "api_error"),
        (errors.InvalidRequest("cannot a: b"), "invalid_request_error"),
    ],
)
def test_a_stream_says_overloaded_wherever_claude_code_is_to_wait_and_ask_again(
    error: CortexError, type_: str
) -> None:
    frame = error_frame(error.info(), request_id=REQUEST_ID).decode()
    head, _, data = frame.partition("\ndata: ")
    assert head == "event: error"
    assert json.loads(data)["error"] == {"type": type_, "message": "cannot a: b"}
    # Claude Code looks for these letters in the text of the event.
    assert ('"type":"overloaded_error"' in data) == (type_ == "overloaded_error")


def test_a_prompt_that_is_too_long_is_said_in_words_that_clients_know() -> None:
    error = ContextLengthExceeded(prompt_tokens=213_369, max_tokens=200_000).info()
    reply = ANTHROPIC.encode_error(error, request_id=REQUEST_ID)
    envelope = json.loads(reply.body)
    assert envelope["error"]["message"] == "prompt is too long: 213369 tokens > 200000 maximum"
    said = json.loads(CHAT.encode_error(error, request_id=REQUEST_ID).body)["error"]
    assert said["code"] == "context_length_exceeded"
    assert said["message"].startswith(
        "This model's maximum context length is 200000 tokens. However, your messages resulted in "
        "213369 tokens. Please reduce the length of the messages."
    )
    assert said["param"] == "messages"


def test_an_input_that_is_too_long_is_named_in_those_words() -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        check_lengths([1, 8, 2, 9], 8, param="input")
    error = caught.value.info()
    assert error.message.endswith("9 tokens > 8 maximum; split it into shorter ones")
    said = json.loads(CHAT.encode_error(error, request_id=REQUEST_ID).body)["error"]
    assert "your input resulted in 9 tokens" in said["message"]
    assert said["message"].endswith(f"({error.message})")


@pytest.mark.parametrize("text", ["cannot a: b", "prompt is too long: many tokens > few maximum"])
def test_other_words_of_the_same_code_are_left_as_they_are(text: str) -> None:
    error = ErrorInfo("context_length_exceeded", text)
    said = json.loads(CHAT.encode_error(error, request_id=REQUEST_ID).body)["error"]
    assert said["message"] == text


@pytest.mark.parametrize("dialect", [CHAT, ANTHROPIC], ids=["chat", "anthropic"])
@pytest.mark.parametrize(
    "error",
    [
        errors.InternalError("cannot a: b"),
        errors.ModelLoadFailed("cannot a: b"),
        errors.QueueFull("cannot a: b"),
        errors.Conflict("cannot a: b"),
        errors.InvalidRequest("cannot a: b"),
    ],
    ids=lambda each: each.code,
)
def test_clients_ask_only_once_where_a_retry_is_pointless(
    dialect: Dialect, error: CortexError
) -> None:
    raised, asked = ask(dialect, error.info(), max_retries=2)
    assert raised is not None
    assert asked == 1


@given(
    dialect=st.sampled_from(list(DIALECTS.values())),
    retry_after_s=st.floats(0, 1e9, allow_nan=False),
)
def test_clients_are_told_to_wait_for_1_to_120_seconds(
    dialect: Dialect, retry_after_s: float
) -> None:
    error = ErrorInfo("service_unavailable", "cannot a: b", retry_after_s=retry_after_s)
    headers = dialect.encode_error(error, request_id=REQUEST_ID).headers
    wait_s = int(headers["retry-after"])
    assert 1 <= wait_s <= 120
    assert wait_s >= min(retry_after_s, 120)
    assert "x-should-retry" not in headers


def test_answers_carry_the_request_id() -> None:
    assert CHAT.response_headers(REQUEST_ID) == {"x-request-id": "r1"}
    assert ANTHROPIC.response_headers(REQUEST_ID) == {
        "request-id": "req_r1",
        "x-request-id": "r1",
    }
    assert (
        "retry-after"
        not in CHAT.encode_error(
            ErrorInfo("invalid_request", "cannot a: b"), request_id=REQUEST_ID
        ).headers
    )


def test_anthropics_own_name_of_a_format_is_used() -> None:
    message = "cannot hold the answer to response_format: it is nested too deeply"
    error = ErrorInfo("invalid_request", message, param="response_format")
    reply = ANTHROPIC.encode_error(error, request_id=REQUEST_ID)
    told = json.loads(reply.body)["error"]["message"]
    assert told == "cannot hold the answer to output_config.format: it is nested too deeply"
