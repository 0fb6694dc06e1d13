"""OpenAI's service tiers become priorities, and answers say which it was."""

from typing import Any

import pytest

from cortex_core.canonical import Completed, Finished, TextDelta, Usage
from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.dialects.base import Dialect
from cortex_core.dialects.openai_chat import OpenAIChat
from cortex_core.dialects.openai_completions import OpenAICompletions
from tests.unit.cortex_core.dialects.event_streams import started
from tests.unit.cortex_core.dialects.fixture_files import Responses
from tests.unit.cortex_core.dialects.sdk_clients import (
    MESSAGES,
    decode,
    frames,
    openai_client,
    recorder,
    streamed,
    whole,
)

CHAT, COMPLETIONS, RESPONSES = OpenAIChat(), OpenAICompletions(), Responses()
DIALECTS = [CHAT, COMPLETIONS, RESPONSES]
TIERS = [
    ("auto", "default", 0),
    ("default", "default", 0),
    ("scale", "default", 0),
    ("flex", "flex", -1),
    ("priority", "priority", 1),
    ("fast", "priority", 1),
    ("ultrafast", "priority", 1),
]
ANSWER: list[Any] = [
    started(),
    TextDelta(0, "Yes."),
    Finished(0, "stop"),
    Completed(Usage(1, 1)),
]


@pytest.mark.parametrize("dialect", DIALECTS, ids=["chat", "completions", "responses"])
@pytest.mark.parametrize(("asked", "told", "priority"), TIERS)
def test_a_tier_is_a_priority(dialect: Dialect, asked: str, told: str, priority: int) -> None:
    del told
    decoded = decode(dialect, service_tier=asked)
    assert decoded.request.priority == priority
    assert decoded.ignored == ()


@pytest.mark.parametrize("dialect", DIALECTS, ids=["chat", "completions", "responses"])
def test_a_tier_that_is_not_known_is_left_out(dialect: Dialect) -> None:
    decoded = decode(dialect, service_tier="platinum")
    assert decoded.request.priority == 0
    assert decoded.ignored == ("service_tier",)
    assert decode(dialect, service_tier=None).ignored == ()


def test_all_prompts_of_a_completion_have_its_tier() -> None:
    decoded = decode(COMPLETIONS, prompt=["a", "b"], service_tier="flex")
    assert [request.priority for request in decoded.requests()] == [-1, -1]


@pytest.mark.parametrize(("asked", "told"), [(asked, told) for asked, told, _ in TIERS])
def test_answers_say_which_tier_it_was(asked: str, told: str) -> None:
    decoded = decode(CHAT, service_tier=asked)
    client = openai_client(recorder(whole(CHAT, decoded, ANSWER)))
    answer = client.chat.completions.create(model="m", messages=MESSAGES)
    assert answer.service_tier == told
    chunks = [data for _, data in frames(streamed(CHAT, decoded, ANSWER)) if isinstance(data, dict)]
    assert {chunk["service_tier"] for chunk in chunks} == {told}
    response = decode(RESPONSES, input="hi", service_tier=asked)
    assert response.asked["service_tier"] == told


def test_a_chat_without_a_tier_is_answered_without() -> None:
    decoded = decode(CHAT)
    assert b"service_tier" not in whole(CHAT, decoded, ANSWER)
    assert b"service_tier" not in streamed(CHAT, decoded, ANSWER)


@pytest.mark.parametrize("asked", ["auto", "standard_only", None])
def test_anthropics_tiers_are_one(asked: str | None) -> None:
    decoded = decode(AnthropicMessages(), max_tokens=5, service_tier=asked)
    assert decoded.request.priority == 0
    assert b'"service_tier":"standard"' in whole(AnthropicMessages(), decoded, ANSWER)
