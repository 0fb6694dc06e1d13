"""Whatever the body is, the answer is a request or an error of ours."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cortex_core.canonical import ChatPrompt
from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.dialects.base import Decoded, Dialect
from cortex_core.errors import CortexError, InvalidRequest
from cortex_core.ids import RequestId
from tests.unit.cortex_core.dialects.event_streams import json_values
from tests.unit.cortex_core.dialects.fixture_files import DIALECTS, fixture, names

REQUEST_ID = RequestId("r")
BODIES = [fixture("requests", name)["body"] for name in names("requests")]
dialects = st.sampled_from(list(DIALECTS.values()))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path inside a JSON value."""
    found = [path] if path else []
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a JSON value with another one at `path`."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(value, dict):
        return value | {key: replaced(value[key], rest, new)}
    return [replaced(each, rest, new) if at == key else each for at, each in enumerate(value)]


odd_values = json_values | st.sampled_from(
    [
        1e308,
        -1e308,
        10**400,
        -(10**400),
        2**63,
        -(2**63) - 1,
        2**64,
        "\x00",
        [],
        {},
        [[]],
        "data:;base64,",
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    body = draw(st.sampled_from(BODIES))
    for _ in range(draw(st.integers(0, 2))):
        body = replaced(body, draw(st.sampled_from(places(body))), draw(odd_values))
    return json.dumps(body).encode()


def outcome(read: Callable[[], Any]) -> Any:
    """What was read, or the error of ours; anything else that is raised fails the test."""
    try:
        return read()
    except CortexError as error:
        return error


def check(dialect: Dialect, body: bytes) -> None:
    result = outcome(lambda: dialect.decode_request(body, request_id=REQUEST_ID))
    if isinstance(result, InvalidRequest):
        assert result.message.startswith("cannot read request: ")
        assert result.param is None or result.param in result.message
    else:
        assert isinstance(result, Decoded)


@given(dialect=dialects, body=st.binary(max_size=200))
@example(dialect=AnthropicMessages(), body=b'{"model": "\xff"}')
@example(dialect=AnthropicMessages(), body=b'{"model": "\\ud800"}')
@example(dialect=AnthropicMessages(), body=b"\xef\xbb\xbf{}")
def test_any_bytes_are_read_or_refused(dialect: Dialect, body: bytes) -> None:
    check(dialect, body)


@given(dialect=dialects, body=mutated())
def test_any_mutation_of_a_real_request_is_read_or_refused(dialect: Dialect, body: bytes) -> None:
    check(dialect, body)


@given(dialect=dialects, cut=st.integers(0, 4000), flip=st.integers(0, 255), body=mutated())
def test_any_damage_to_a_real_request_is_read_or_refused(
    dialect: Dialect, cut: int, flip: int, body: bytes
) -> None:
    at = cut % len(body)
    check(dialect, body[:at])
    check(dialect, body[:at] + bytes([flip]) + body[at + 1 :])


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"model":"m","messages":[{"content":['])
def test_deep_nesting_is_refused(dialect: Dialect, opening: bytes) -> None:
    with pytest.raises(InvalidRequest, match="cannot read request"):
        dialect.decode_request(opening * 100_000, request_id=REQUEST_ID)
    deep = b'{"model":"m","unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        dialect.decode_request(deep, request_id=REQUEST_ID)


DEEP = "[DEEP]"
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": DEEP}}
USED = {"type": "tool_use", "id": "c", "name": "f", "input": DEEP}
TOOL = {"name": "f", "parameters": DEEP}
USER = {"role": "user", "content": "q"}


@pytest.mark.parametrize(
    ("dialect", "changes"),
    [
        ("openai_chat", {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}]}),
        ("openai_chat", {"tools": [{"type": "function", "function": TOOL}]}),
        ("openai_chat", {"chat_template_kwargs": DEEP}),
        ("openai_completions", {"prompt": "q", "metadata": DEEP}),
        ("openai_responses", {"input": "q", "tools": [{"type": "function", **TOOL}]}),
        ("openai_responses", {"input": [{"role": "user", "content": [DEEP]}]}),
        ("openai_responses", {"input": [{"type": "unheard_of", "x": DEEP}]}),
        ("anthropic_messages", {"messages": [USER, {"role": "assistant", "content": [USED]}]}),
        ("anthropic_messages", {"tools": [{"name": "f", "input_schema": DEEP}]}),
        ("anthropic_messages", {"metadata": DEEP}),
    ],
)
def test_what_can_just_be_read_is_read_or_refused(dialect: str, changes: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "max_tokens": 1, "messages": [USER]} | changes)
    before, after = body.split(json.dumps(DEEP))
    limit = sys.getrecursionlimit()
    for depth in (*range(limit // 2 - 40, limit // 2 + 1), *range(limit - 80, limit + 1)):
        for opening, closing in (('{"a":', "}"), ('{"a":[', "]}")):
            deep = f"{opening * depth}1{closing * depth}"
            check(DIALECTS[dialect], f"{before}{deep}{after}".encode())


@given(body=st.binary(max_size=100) | mutated())
def test_a_count_reads_or_refuses_the_same_bytes(body: bytes) -> None:
    result = outcome(lambda: AnthropicMessages().decode_count_tokens(body))
    if isinstance(result, InvalidRequest):
        assert result.message.startswith("cannot read request: ")
    else:
        assert result.model.strip()
        assert isinstance(result.prompt, ChatPrompt)


@pytest.mark.parametrize("digits", [4000, 4299, 4300, 4301, 5000])
@pytest.mark.parametrize("field", ["max_tokens", "n", "seed", "top_k", "temperature"])
@pytest.mark.parametrize("sign", ["", "-"])
def test_numbers_of_any_length_are_read_or_refused(digits: int, field: str, sign: str) -> None:
    number = sign + "9" * digits
    body = f'{{"model": "m", "messages": [{{"role": "user"}}], "{field}": {number}}}'
    check(DIALECTS["openai_chat"], body.encode())
