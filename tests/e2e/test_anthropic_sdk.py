"""The official anthropic SDK against the whole fleet, on SmolLM2."""

import json
from typing import Any

import anthropic
import pytest
from anthropic.types import Message

from tests.fakes.fleet_process import CONTEXT, FleetProcess
from tests.fakes.model_cache import SMOLLM2

pytestmark = pytest.mark.model

FRANCE: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: dict[str, Any] = {"extra_body": {"temperature": 0}}
"""Newer SDKs have no parameter for it; the API takes it."""


def ask(fleet: FleetProcess, messages: list[Any] = FRANCE, **options: Any) -> Message:
    asked = {"model": SMOLLM2, "messages": messages, "max_tokens": 24, **GREEDY, **options}
    return fleet.anthropic.messages.create(**asked)


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_an_answer_is_right_and_equal_in_both_dialects(fleet: FleetProcess) -> None:
    message = ask(fleet)
    assert "Paris" in text_of(message)
    assert message.stop_reason == "end_turn"
    other = fleet.openai.chat.completions.create(
        model=SMOLLM2, messages=FRANCE, max_tokens=24, temperature=0
    )
    assert other.choices[0].message.content == text_of(message)
    assert other.usage is not None
    assert other.usage.completion_tokens == message.usage.output_tokens
    cached = message.usage.cache_read_input_tokens or 0
    assert other.usage.prompt_tokens == message.usage.input_tokens + cached


def test_a_stream_says_what_a_whole_answer_says(fleet: FleetProcess) -> None:
    whole = ask(fleet)
    with fleet.anthropic.messages.stream(
        model=SMOLLM2, messages=FRANCE, max_tokens=24, **GREEDY
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == text_of(whole) == text_of(final)
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_system_and_turns_reach_the_model(fleet: FleetProcess) -> None:
    turns = [
        {"role": "user", "content": "My name is Clara."},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello Clara."}]},
        {"role": "user", "content": "What is my name?"},
    ]
    message = ask(fleet, turns, system="You always answer in French.")
    assert "Clara" in text_of(message)


def test_counted_tokens_are_the_usage(fleet: FleetProcess) -> None:
    counted = fleet.anthropic.messages.count_tokens(model=SMOLLM2, messages=FRANCE)
    usage = ask(fleet, max_tokens=1).usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_a_repeated_prompt_is_taken_from_the_cache(fleet: FleetProcess) -> None:
    question = [{"role": "user", "content": "Say this again: " + "red green blue " * 20}]
    for changing in ("3f2a1", "ffffe"):  # as Claude Code begins its system text
        billing = f"x-anthropic-billing-header: cc_version=2.1.197; cch={changing};"
        system = [{"type": "text", "text": text} for text in (billing, "You repeat things.")]
        usage = ask(fleet, question, max_tokens=2, system=system).usage
    assert usage.cache_read_input_tokens is not None
    assert usage.cache_read_input_tokens > usage.input_tokens


def test_a_stop_sequence_is_named(fleet: FleetProcess) -> None:
    message = ask(fleet, stop_sequences=[" of France"])
    assert message.stop_reason == "stop_sequence"
    assert message.stop_sequence == " of France"
    assert text_of(message) == text_of(ask(fleet)).partition(" of France")[0]


def test_a_last_turn_of_the_assistant_goes_on_where_it_ends(fleet: FleetProcess) -> None:
    turns = [*FRANCE, {"role": "assistant", "content": "The capital of France is"}]
    message = ask(fleet, turns)
    assert text_of(message).startswith(" Paris")
    counted = fleet.anthropic.messages.count_tokens(model=SMOLLM2, messages=turns)
    usage = message.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    whole = fleet.anthropic.messages.count_tokens(model=SMOLLM2, messages=FRANCE)
    assert counted.input_tokens == whole.input_tokens + 5


def test_a_large_max_tokens_is_clamped(fleet: FleetProcess) -> None:
    question = [{"role": "user", "content": "Go on counting. " + "1 2 3 " * (CONTEXT // 6 - 8)}]
    with fleet.anthropic.messages.stream(
        model=SMOLLM2, messages=question, max_tokens=32_000, **GREEDY
    ) as stream:
        message = stream.get_final_message()
    usage = message.usage
    assert message.stop_reason == "model_context_window_exceeded"
    spent = usage.input_tokens + (usage.cache_read_input_tokens or 0) + usage.output_tokens
    assert spent == CONTEXT


def test_the_models_list_has_ids_and_aliases(fleet: FleetProcess) -> None:
    listed = {model.id: model for model in fleet.anthropic.models.list()}
    assert {SMOLLM2, "small"} <= set(listed)
    assert all(model.type == "model" for model in listed.values())
    assert fleet.anthropic.models.retrieve("small").id in {"small", SMOLLM2}


def test_an_answer_is_held_to_a_schema(fleet: FleetProcess) -> None:
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 12}},
        "required": ["capital"],
        "additionalProperties": False,
    }
    held: dict[str, Any] = {"format": {"type": "json_schema", "schema": schema}}
    message = ask(fleet, extra_body={"temperature": 0, "output_config": held}, max_tokens=60)
    assert message.stop_reason == "end_turn"
    assert set(json.loads(text_of(message))) == {"capital"}
    bad: dict[str, Any] = {"format": {"type": "json_schema", "schema": {"type": "nothing"}}}
    with pytest.raises(anthropic.BadRequestError) as caught:
        ask(fleet, extra_body={"output_config": bad})
    assert "cannot hold the answer to" in caught.value.message
