"""Zed reads every line of a stream: these are the shapes it insists on, after its open source.

It takes lines that begin with `data:` and passes over all others. What it cannot read ends its turn
with an error: a field that is missing, or `null` where it wants a value, is one too many.
"""

from typing import Any, Literal

import msgspec
import pytest

from tests.unit.cortex_core.dialects.fixture_files import fixture, names


class Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class ToolCallChunk(msgspec.Struct):
    index: int
    id: str | None = None
    function: Function | None = None


class Delta(msgspec.Struct):
    role: Literal["user", "assistant", "system", "tool"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallChunk] | None = None
    reasoning_content: str | None = None


class Choice(msgspec.Struct):
    index: int
    delta: Delta | None = None
    finish_reason: str | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Chunk(msgspec.Struct):
    choices: list[Choice]
    usage: Usage | None = None


class Failure(msgspec.Struct):
    message: str


class Failed(msgspec.Struct):
    error: Failure


class Item(msgspec.Struct):
    type: str
    id: str | None = None
    arguments: str = ""
    call_id: str | None = None
    name: str | None = None
    content: list[Any] = []
    summary: list[Any] = []


class ResponseUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None


class Response(msgspec.Struct):
    id: str | None = None
    status: str | None = None
    usage: ResponseUsage | None = None
    output: list[Item] = []


class OfResponse(msgspec.Struct):
    response: Response


class OfItem(msgspec.Struct):
    output_index: int
    item: Item
    sequence_number: int | None = None


class OfPart(msgspec.Struct):
    item_id: str
    output_index: int
    content_index: int
    part: Any


class OfDelta(msgspec.Struct):
    item_id: str
    output_index: int
    delta: str


class OfText(msgspec.Struct):
    item_id: str
    output_index: int
    text: str


class OfArguments(msgspec.Struct):
    item_id: str
    output_index: int
    arguments: str


class OfSummary(msgspec.Struct):
    item_id: str
    output_index: int
    summary_index: int


EVENTS: dict[str, type[msgspec.Struct]] = {
    "response.created": OfResponse,
    "response.in_progress": OfResponse,
    "response.completed": OfResponse,
    "response.incomplete": OfResponse,
    "response.failed": OfResponse,
    "response.output_item.added": OfItem,
    "response.output_item.done": OfItem,
    "response.content_part.added": OfPart,
    "response.content_part.done": OfPart,
    "response.output_text.delta": OfDelta,
    "response.output_text.done": OfText,
    "response.reasoning_summary_part.added": OfSummary,
    "response.reasoning_summary_part.done": OfSummary,
    "response.reasoning_summary_text.delta": OfDelta,
    "response.reasoning_summary_text.done": OfText,
    "response.function_call_arguments.delta": OfDelta,
    "response.function_call_arguments.done": OfArguments,
    "error": Failed,
}
"""What it reads of each; events of other types it leaves out."""
ENDS = {"response.completed", "response.incomplete", "response.failed"}


def data_lines(name: str) -> list[str]:
    lines = [line for line in fixture("responses", name)["stream"] if line.startswith("data:")]
    return [line.removeprefix("data:").removeprefix(" ") for line in lines]


def streams(dialect: str) -> list[str]:
    return [name for name in names("responses") if name.startswith(dialect)]


@pytest.mark.parametrize("name", streams("openai_chat"))
def test_every_chunk_of_a_chat_is_read(name: str) -> None:
    named: dict[tuple[int, int], bool] = {}
    for line in data_lines(name):
        if line == "[DONE]":
            continue
        if "error" in msgspec.json.decode(line):
            msgspec.json.decode(line, type=Failed)
            continue
        for choice in msgspec.json.decode(line, type=Chunk).choices:
            for call in (choice.delta and choice.delta.tool_calls) or []:
                # Its first chunk names a call; those that follow are told apart by their place.
                says = bool(call.id and call.function and call.function.name)
                named.setdefault((choice.index, call.index), says)
    assert all(named.values())
    assert len(named) == (2 if name == "openai_chat_agent" else 0)


@pytest.mark.parametrize("name", streams("openai_responses"))
def test_every_event_of_a_response_is_read(name: str) -> None:
    lines = [line for line in data_lines(name) if line != "[DONE]"]
    types = [msgspec.json.decode(line)["type"] for line in lines]
    for kind, line in zip(types, lines, strict=True):
        if kind in EVENTS:
            msgspec.json.decode(line, type=EVENTS[kind])
    assert types[-1] in ENDS
