"""What an Anthropic request says beside its plain turns."""

import json
from typing import Any

import pytest

from cortex_core.canonical import ChatPrompt, ReasoningPart, TextPart, ToolChoice
from cortex_core.dialects.anthropic_messages import AnthropicMessages
from cortex_core.dialects.base import Decoded
from cortex_core.dialects.left_out import left_out_headers
from cortex_core.errors import InvalidRequest
from cortex_core.ids import RequestId

ANTHROPIC = AnthropicMessages()
USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object"}


def decode(*messages: dict[str, Any], **fields: Any) -> Decoded:
    body = {"model": "m", "max_tokens": 9, "messages": list(messages or [USER])} | fields
    data = json.dumps(body).encode()
    decoded = ANTHROPIC.decode_request(data, request_id=RequestId("r"))
    if "format" not in body.get("output_config", {}):
        assert ANTHROPIC.decode_count_tokens(data).prompt == decoded.request.prompt
    return decoded


def prompt(*messages: dict[str, Any], **fields: Any) -> ChatPrompt:
    made = decode(*messages, **fields).request.prompt
    assert isinstance(made, ChatPrompt)
    return made


def said(made: ChatPrompt) -> list[tuple[str, list[str]]]:
    return [
        (each.role, [part.text for part in each.content if isinstance(part, TextPart)])
        for each in made.messages
    ]


def assistant(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


CALL = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1"}]}


@pytest.mark.parametrize(
    ("last", "goes_on"),
    [
        (assistant(text("The answer is (")), True),
        ({"role": "assistant", "content": "The answer is ("}, True),
        (assistant({"type": "server_tool_use"}, text("Found")), True),  # as after pause_turn
        (assistant({"type": "server_tool_use"}), False),
        (assistant(text("")), False),
        (assistant(text("Looking."), CALL), False),
        (assistant({"type": "thinking", "thinking": "hm", "signature": "s"}), False),
        (USER, False),
    ],
)
def test_text_that_ends_the_last_turn_of_the_assistant_is_continued(
    last: dict[str, Any], goes_on: bool
) -> None:
    assert prompt(USER, last).continue_final_message == goes_on


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": []},
        {"role": "system", "content": ""},
        assistant({"type": "redacted_thinking", "data": "x"}),
        assistant({"type": "server_tool_use"}),
    ],
)
def test_messages_of_which_nothing_is_left_are_refused(message: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="one message that says something") as caught:
        decode(message, message)
    assert caught.value.param == "messages"
    assert len(prompt(message, USER).messages) == 1


def test_an_answer_held_to_a_format_cannot_continue_a_text() -> None:
    held = {"format": {"type": "json_schema", "schema": SCHEMA}}
    with pytest.raises(InvalidRequest, match="begins anew") as caught:
        decode(USER, assistant(text("{")), output_config=held)
    assert caught.value.param == "messages"
    old = decode(USER, output_format=held["format"]).request.response_format
    assert old == decode(USER, output_config=held).request.response_format
    with pytest.raises(InvalidRequest, match=r"output_format\.type"):
        decode(USER, output_format={"type": "yaml"})


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ({"type": "disabled"}, {"enable_thinking": False}),
        ({"type": "adaptive"}, {"enable_thinking": True}),
        ({"type": "adaptive", "display": "summarized"}, {"enable_thinking": True}),
        (
            {"type": "enabled", "budget_tokens": 2048},
            {"enable_thinking": True, "thinking_budget": 2048},
        ),
        ({"type": "between_tools"}, {"enable_thinking": False}),
        ({"type": "of_next_year"}, {"enable_thinking": True}),
        (None, {}),
    ],
)
def test_thinking_is_asked_of_the_template(
    thinking: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    assert prompt(thinking=thinking).template_kwargs == expected


def test_thinking_between_tools_begins_with_a_result() -> None:
    made = prompt(USER, assistant(CALL), RESULT, thinking={"type": "between_tools"})
    assert made.template_kwargs == {"enable_thinking": True}


@pytest.mark.parametrize("signature", ["", "cortex", "EqQBCgIYAhIM", "cortex:no base64!", None])
def test_any_signature_of_a_thought_is_taken(signature: str | None) -> None:
    block = {"type": "thinking", "thinking": "hm", "signature": signature}
    part = prompt(USER, assistant(block, text("a")), USER).messages[1].content[0]
    assert part == ReasoningPart("hm", signature or None)
    empty = decode(USER, assistant(block | {"thinking": ""}, text("a")), USER)
    assert empty.ignored == ("messages[1].content[0]",)


def test_system_text_stands_where_the_client_put_it() -> None:
    system = {"role": "system", "content": "Be kind."}
    made = prompt(USER, system, assistant(text("a")), USER, system=[text("Be brief.")])
    assert [role for role, _ in said(made)] == ["system", "user", "system", "assistant", "user"]


def test_system_text_for_one_turn_is_gone_in_the_next() -> None:
    once = {"role": "system", "content": "Now be quick.", "clear_at": "next_user_message"}
    assert said(prompt(USER, once))[-1] == ("system", ["Now be quick."])
    assert said(prompt(USER, once, assistant(text("a")), USER)) == [
        ("user", ["hi"]),
        ("assistant", ["a"]),
        ("user", ["hi"]),
    ]
    always = once | {"clear_at": "never"}
    assert len(prompt(USER, always, assistant(text("a")), USER).messages) == 4


def test_effort_is_of_the_request_or_of_its_last_turn() -> None:
    hard = {"role": "system", "output_config": {"effort": "max"}}
    fields = {"output_config": {"effort": "low"}}
    assert prompt(USER, **fields).reasoning_effort == "low"
    made = prompt(USER, hard, **fields)
    assert made.reasoning_effort == "max"
    assert [each.role for each in made.messages] == ["user"]
    assert prompt(USER, hard, assistant(text("a")), USER, **fields).reasoning_effort == "low"


def test_a_summary_of_a_server_is_text_and_other_blocks_of_it_are_left_out() -> None:
    listing = {"type": "mcp_tool_listing", "mcp_server_name": "x", "tools": []}
    fallback = {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}}
    summary = {"type": "compaction", "content": "They spoke of rivers.", "signature": "s"}
    failed = {"type": "compaction", "content": None}
    decoded = decode(assistant(summary, failed, listing, fallback), USER)
    assert decoded.ignored == ("messages[0].content[2]", "messages[0].content[3]")
    made = decoded.request.prompt
    assert isinstance(made, ChatPrompt)
    assert said(made)[0] == ("assistant", ["They spoke of rivers."])


def tool(name: str) -> dict[str, Any]:
    return {"name": name, "input_schema": SCHEMA}


def change(kind: str, changed: dict[str, Any]) -> dict[str, Any]:
    return {"role": "system", "content": [{"type": f"tool_{kind}", "tool": changed}]}


def by_name(name: str) -> dict[str, Any]:
    return {"type": "tool_reference", "name": name}


def test_tools_change_in_mid_conversation() -> None:
    defined = {"type": "tool_definition", "definition": tool("c")}
    turns = [USER, change("removal", by_name("a")), change("addition", defined)]
    tools = [tool("a"), tool("b")]
    assert [each.name for each in prompt(*turns, tools=tools).tools] == ["b", "c"]
    turns.append(change("addition", by_name("a")))
    assert [each.name for each in prompt(*turns, tools=tools).tools] == ["a", "b", "c"]
    with pytest.raises(InvalidRequest, match="no tool 'z'") as caught:
        prompt(USER, change("removal", by_name("z")), tools=tools)
    assert caught.value.param == "messages[1].content[0].tool.name"
    of_server = {"type": "mcp_tool_reference", "server_name": "s", "name": "n"}
    assert decode(USER, change("addition", of_server)).ignored == ("messages[1].content[0]",)


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        ({"type": "auto"}, ToolChoice(), True),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolChoice(), False),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice("required"), False),
        ({"type": "tool", "name": "a"}, ToolChoice("named", "a"), True),
        ({"type": "none"}, ToolChoice("none"), True),
    ],
)
def test_tool_choice(choice: dict[str, Any], expected: ToolChoice, parallel: bool) -> None:
    made = prompt(tools=[tool("a")], tool_choice=choice)
    assert made.tool_choice == expected
    assert made.parallel_tool_calls == parallel


def test_a_tool_of_anthropics_servers_cannot_be_chosen() -> None:
    search = {"type": "web_search_20260318", "name": "web_search"}
    with pytest.raises(InvalidRequest, match=r"tools\[0\] is run by Anthropic's servers only"):
        decode(tools=[search], tool_choice={"type": "tool", "name": "web_search"})
    with pytest.raises(InvalidRequest, match="there are no tools"):
        decode(tools=[search], tool_choice={"type": "any"})


@pytest.mark.parametrize(
    ("kind", "field", "values"),
    [
        ("text_editor_20250124", "command", {"undo_edit"}),
        ("computer_20250124", "action", {"scroll", "triple_click"}),
    ],
)
def test_versions_of_a_typed_tool_differ_as_their_clients_do(
    kind: str, field: str, values: set[str]
) -> None:
    other = {"text_editor_20250124": "text_editor_20250728", "computer_20250124": ""}[kind]
    old = prompt(tools=[{"type": kind, "name": "it"}]).tools[0]
    new = prompt(tools=[{"type": other or "computer_20241022", "name": "it"}]).tools[0]
    assert values <= enum(old, field)
    assert not values & enum(new, field)


def enum(made: Any, field: str) -> set[str]:
    return set(made.parameters["properties"][field]["enum"])


def test_the_computer_tool_tells_the_size_of_the_display() -> None:
    computer = {
        "type": "computer_20251124",
        "name": "computer",
        "display_width_px": 1024,
        "display_height_px": 768,
        "enable_zoom": True,
    }
    made = prompt(tools=[computer]).tools[0]
    assert "1024 by 768 pixels" in (made.description or "")
    assert "zoom" in enum(made, "action")


def test_headers_name_what_was_left_out_and_stay_short() -> None:
    assert left_out_headers(decode()) == {}
    few = decode(container="c", mcp_servers=[{"name": "n"}])
    assert left_out_headers(few) == {"x-cortex-ignored": "container, mcp_servers"}
    history = assistant(*[{"type": "server_tool_use"}] * 500, text("a"))
    (value,) = left_out_headers(decode(history, USER, container="c")).values()
    assert value.startswith("..., messages[0].content[")
    assert value.endswith("messages[0].content[499], container")
    assert len(value) <= 1010
