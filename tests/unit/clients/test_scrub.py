"""A recorded request keeps its form, and none of its words."""

import json
from typing import Any

import pytest

from tests.clients.scrub import MODEL, filler, scrub, scrub_headers
from tests.unit.cortex_core.dialects.fixture_files import fixture, names

UUID = "0199a3c4-1111-7222-8333-abcdef012345"
TEXT = "Today is 2026-11-29.\n\n# Files\n\t- `/home/someone/Ünterlagen` · 3 — <b>🙂</b>\n"


def shape(value: Any) -> Any:
    """What is left of a JSON value without its words."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return len(value) if isinstance(value, str) else type(value).__name__


@pytest.mark.parametrize("name", names("requests"))
def test_members_types_order_and_lengths_stay(name: str) -> None:
    body = fixture("requests", name)["body"]
    scrubbed = scrub(body)
    assert json.dumps(shape(scrubbed)) == json.dumps(shape(body | {"model": MODEL}))


def test_a_text_keeps_its_marks_and_spaces_alone() -> None:
    scrubbed = filler(TEXT)
    assert len(scrubbed) == len(TEXT)
    assert [c for c in scrubbed if not c.isalnum()] == [c for c in TEXT if not c.isalnum()]
    assert "0000-00-00" in scrubbed
    words = {word for word in TEXT.split() if len(word) > 3 and word[0].isalpha()}
    assert not words & set(scrubbed.split())


def test_it_is_the_same_each_time_and_another_for_another_text() -> None:
    assert filler(TEXT) == filler(TEXT)
    assert filler("One text of two.") != filler("Two text of one.")
    assert filler("") == ""


def test_names_and_schemas_stay_and_what_they_say_does_not() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "metadata": {"type": "string", "enum": ["one", "two words"], "description": "Some."},
            "input": {"type": "tool_use", "pattern": "^[a-z]+$", "default": "two"},
            "description": {"anyOf": [{"const": "x"}, {"type": "null"}], "maxLength": 2**53},
        },
        "required": ["metadata"],
        "additionalProperties": False,
    }
    tool = {"name": "read_file", "description": "Reads it.", "input_schema": schema}
    (scrubbed,) = scrub({"tools": [tool]})["tools"]
    assert scrubbed.pop("description") != tool["description"]
    told = scrubbed["input_schema"]["properties"]["metadata"]
    assert told["description"] != "Some."
    told["description"] = "Some."
    assert scrubbed == {"name": "read_file", "input_schema": schema}


def test_an_id_is_the_same_other_one_wherever_it_stands() -> None:
    scrubbed = scrub(
        {
            "prompt_cache_key": UUID,
            "metadata": {"user_id": json.dumps({"device_id": "ab" * 32, "session": UUID})},
            "client_metadata": {"window": f"{UUID}:0", "at": 1_790_000_000_000, "name": "host"},
            "input": [
                {"type": "function_call", "call_id": "call_9f3a77b0", "name": "run"},
                {"type": "function_call_output", "call_id": "call_9f3a77b0", "output": "done"},
            ],
        }
    )
    other = "00000000-0000-0000-0000-000000000001"
    assert scrubbed["prompt_cache_key"] == other
    user = json.loads(scrubbed["metadata"]["user_id"])
    assert user == {"device_id": "0" * 63 + "2", "session": other}
    assert scrubbed["client_metadata"]["window"] == f"{other}:0"
    assert scrubbed["client_metadata"]["at"] == 1_700_000_000
    assert scrubbed["client_metadata"]["name"] not in ("host", "")
    calling, result = scrubbed["input"]
    assert calling == {"type": "function_call", "call_id": "call_00000003", "name": "run"}
    assert result["call_id"] == calling["call_id"]
    assert result["output"] != "done"


def test_arguments_of_calls_are_words_but_for_their_names() -> None:
    arguments = {"type": "file", "file_path": "/home/someone/a.txt", "limit": 5}
    block = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": arguments}
    function = {"name": "Read", "arguments": json.dumps(arguments, separators=(",", ":"))}
    scrubbed = scrub({"messages": [{"content": [block]}, {"tool_calls": [{"function": function}]}]})
    told, calling = scrubbed["messages"]
    written = calling["tool_calls"][0]["function"]["arguments"]
    assert json.loads(written) == told["content"][0]["input"]
    assert shape(json.loads(written)) == shape(arguments)
    assert len(written) == len(function["arguments"])
    assert "someone" not in written
    assert '"file"' not in written


def test_the_billing_line_is_still_one() -> None:
    line = "x-anthropic-billing-header: cc_version=2.1.197.123; cc_entrypoint=cli; cch=3f2a1;"
    scrubbed = filler(line)
    assert scrubbed.startswith("x-anthropic-billing-header: cc_version=0.0.000.000; cc_entrypoint=")
    assert "3f2a1" not in scrubbed


def test_headers_that_say_what_is_asked_stay() -> None:
    headers = {
        "host": "127.0.0.1:1",
        "authorization": "Bearer key",
        "originator": "codex_exec",
        "user-agent": "codex_exec/0.171.0 (Some Linux 12; x86_64) xterm",
        "anthropic-beta": "some-2026-01-01",
        "x-claude-code-session-id": UUID,
    }
    assert scrub_headers(headers) == {
        "originator": "codex_exec",
        "user-agent": "codex_exec/0.171.0",
        "anthropic-beta": "some-2026-01-01",
    }
