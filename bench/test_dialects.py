"""What a dialect costs: one chunk of a stream, and one request of the size that agents send."""

import json

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from cortex_core.canonical import Started, TextDelta
from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.dialects.base import Dialect
from cortex_core.dialects.openai_chat import OpenAIChat
from cortex_core.ids import ModelId, RequestId

REQUEST = RequestId("bench")
DIALECTS = {"openai_chat": OpenAIChat(), "anthropic_messages": AnthropicMessages()}


def agent_body(num_turns: int) -> bytes:
    """Return a request with `num_turns` pairs of turns, in the fields both dialects share."""
    turns = [
        {"role": role, "content": "A paragraph of an ordinary length, as agents send them. " * 20}
        for _ in range(num_turns)
        for role in ("user", "assistant")
    ]
    return json.dumps(
        {
            "model": "small",
            "max_tokens": 32000,
            "stream": True,
            "messages": [*turns, {"role": "user", "content": "Go on."}],
        }
    ).encode()


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
def test_encode_a_chunk(benchmark: BenchmarkFixture, dialect: Dialect) -> None:
    """One token's text, once the stream runs."""
    decoded = dialect.decode_request(agent_body(1), request_id=REQUEST)
    encoder = dialect.encoder(decoded, created=0)
    encoder.event(Started(REQUEST, ModelId("pypi:m"), prompt_tokens=8))
    encoder.event(TextDelta(0, "The"))
    chunk = benchmark(encoder.event, TextDelta(0, " capital"))
    assert b" capital" in chunk


@pytest.mark.parametrize("num_turns", [1, 50])
@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
def test_decode_a_request(benchmark: BenchmarkFixture, dialect: Dialect, num_turns: int) -> None:
    """A conversation of 1 and of 50 pairs of turns (2 KB and 115 KB)."""
    body = agent_body(num_turns)
    decoded = benchmark(dialect.decode_request, body, request_id=REQUEST)
    assert decoded.model == "small"
