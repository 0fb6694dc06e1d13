"""Counting tokens for Anthropic's clients."""

import json

import pytest

from cortex_core.canonical import ChatPrompt
from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.errors import InvalidRequest
from cortex_core.ids import RequestId
from tests.unit.cortex_core.dialects.event_streams import MODEL
from tests.unit.cortex_core.dialects.fixture_files import fixture
from tests.unit.cortex_core.dialects.sdk_clients import MESSAGES, anthropic_client, recorder

ANTHROPIC = AnthropicMessages()


def test_a_count_sees_the_prompt_that_a_request_would_render() -> None:
    body = fixture("requests", "anthropic_tool_history")["body"]
    whole = json.dumps(body).encode()
    del body["max_tokens"]
    count = ANTHROPIC.decode_count_tokens(json.dumps(body).encode())
    assert count.model == "small"
    assert isinstance(count.prompt, ChatPrompt)
    decoded = ANTHROPIC.decode_request(whole, request_id=RequestId("r"))
    assert count.prompt == decoded.request.prompt


def test_a_count_without_messages_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        ANTHROPIC.decode_count_tokens(b'{"model": "m"}')
    assert caught.value.param == "messages"


def test_the_sdk_reads_the_count() -> None:
    client = anthropic_client(recorder(ANTHROPIC.encode_count_tokens(1234)))
    counted = client.messages.count_tokens(model=MODEL, messages=MESSAGES)
    assert counted.input_tokens == 1234
