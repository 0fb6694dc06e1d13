"""Bodies with very many of something are refused before anything is made of each."""

import json
from typing import Any

import pytest

from cortex_core.canonical import MAX_PARTS, MAX_PROMPT_TOKENS, MAX_TOOLS
from cortex_core.dialects import openai_embeddings
from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.dialects.fields import MAX_MODEL_CHARS
from cortex_core.dialects.openai_embeddings import OpenAIEmbeddings
from cortex_core.embedding_limits import MAX_INPUTS
from cortex_core.errors import InvalidRequest
from cortex_core.ids import RequestId
from tests.unit.cortex_core.dialects.fixture_files import DIALECTS

EMPTY = {"role": "user", "content": ""}
TEXT = {"type": "text", "text": ""}
CALL = {"id": "c", "type": "function", "function": {"name": "f"}}
RESULT = {"type": "tool_result", "tool_use_id": "c"}


def decode(dialect: str, **body: Any) -> Any:
    text = json.dumps({"model": "m", **body}).encode()
    return DIALECTS[dialect].decode_request(text, request_id=RequestId("r"))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_name_that_no_model_has_is_refused_and_not_repeated(dialect: str) -> None:
    body = {"prompt": "a", "messages": [EMPTY], "input": "a"}
    if dialect == "openai_responses":
        del body["prompt"]
    assert decode(dialect, model="m" * MAX_MODEL_CHARS, **body)
    with pytest.raises(InvalidRequest, match="at most 256 characters, got 257") as caught:
        decode(dialect, model="m" * (MAX_MODEL_CHARS + 1), **body)
    assert caught.value.param == "model"
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("dialect", ["openai_chat", "anthropic_messages"])
def test_messages_may_be_so_many(dialect: str) -> None:
    assert len(decode(dialect, messages=[EMPTY] * MAX_PARTS).request.prompt.messages) == MAX_PARTS
    with pytest.raises(InvalidRequest, match="at most 16384 messages") as caught:
        decode(dialect, messages=[EMPTY] * (MAX_PARTS + 1))
    assert caught.value.param == "messages"


@pytest.mark.parametrize("item", [EMPTY, EMPTY | {"content": [{"type": "input_text", "text": ""}]}])
def test_items_may_be_so_many(item: dict[str, Any]) -> None:
    items = [item] * MAX_PARTS
    assert len(decode("openai_responses", input=items).request.prompt.messages) == MAX_PARTS
    with pytest.raises(InvalidRequest, match="at most 16384 messages") as caught:
        decode("openai_responses", input=[*items, item])
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        ("openai_chat", {"role": "user", "content": [TEXT] * MAX_PARTS}),
        ("openai_chat", {"role": "assistant", "tool_calls": [CALL] * MAX_PARTS}),
        ("anthropic_messages", {"role": "user", "content": [TEXT] * MAX_PARTS}),
        ("anthropic_messages", {"role": "user", "content": [RESULT] * MAX_PARTS}),
        (
            "anthropic_messages",
            {"role": "user", "content": [RESULT | {"content": [TEXT] * MAX_PARTS}]},
        ),
    ],
)
def test_parts_are_counted_wherever_they_stand(dialect: str, message: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="at most 16384 messages and parts"):
        decode(dialect, messages=[EMPTY, message])


def test_system_blocks_and_questions_for_a_count_are_counted() -> None:
    body = {"model": "m", "messages": [EMPTY], "system": [TEXT] * MAX_PARTS}
    with pytest.raises(InvalidRequest, match="at most 16384"):
        AnthropicMessages().decode_count_tokens(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("dialect", "tool"),
    [
        ("openai_chat", {"type": "function", "function": {"name": "f"}}),
        ("openai_responses", {"type": "function", "name": "f"}),
        ("anthropic_messages", {"name": "f", "input_schema": {"type": "object"}}),
    ],
)
def test_tools_may_be_so_many(dialect: str, tool: dict[str, Any]) -> None:
    body = {"messages": [EMPTY], "input": "a"}
    assert decode(dialect, tools=[tool] * MAX_TOOLS, **body).request.prompt.tools
    with pytest.raises(InvalidRequest, match="at most 4096, got 4097") as caught:
        decode(dialect, tools=[tool] * (MAX_TOOLS + 1), **body)
    assert caught.value.param == "tools"


def test_tools_that_come_in_mid_conversation_are_counted() -> None:
    tool = {"name": "f", "input_schema": {"type": "object"}}
    added = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": tool}}
    system = {"role": "system", "content": [added] * MAX_TOOLS}
    body = {"messages": [EMPTY, system]}
    assert decode("anthropic_messages", **body).request.prompt.tools
    with pytest.raises(InvalidRequest, match="at most 4096, got 4097"):
        decode("anthropic_messages", tools=[tool], **body)


def test_token_ids_of_a_prompt_may_be_so_many() -> None:
    ids = [7] * MAX_PROMPT_TOKENS
    assert len(decode("openai_completions", prompt=ids).request.prompt.token_ids) == len(ids)
    with pytest.raises(InvalidRequest, match="at most 1048576 token ids") as caught:
        decode("openai_completions", prompt=["a", [*ids, 7]])
    assert caught.value.param == "prompt[1]"


def test_the_one_wrong_token_id_of_many_is_named() -> None:
    ids = [7] * 1000
    assert len(decode("openai_completions", prompt=ids).request.prompt.token_ids) == 1000
    for wrong in (-1, 2**31):
        with pytest.raises(InvalidRequest, match=f"got {wrong}") as caught:
            decode("openai_completions", prompt=[*ids, wrong])
        assert caught.value.param == "prompt[1000]"


@pytest.mark.parametrize("item", ["a", [1]])
def test_inputs_of_an_embedding_are_counted_before_they_are_made(
    item: str | list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def embed(num_inputs: int) -> Any:
        text = json.dumps({"model": "m", "input": [item] * num_inputs}).encode()
        return OpenAIEmbeddings().decode_request(text, request_id=RequestId("r")).request.inputs

    assert len(embed(MAX_INPUTS)) == MAX_INPUTS
    for maker in ("TextPrompt", "TokensPrompt"):
        monkeypatch.setattr(openai_embeddings, maker, None)
    with pytest.raises(InvalidRequest, match="expected 1 to 2048 inputs, got 2049") as caught:
        embed(MAX_INPUTS + 1)
    assert caught.value.param == "input"
