"""Requests for responses: what they become, and what is kept of them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseItem, response_create_params
from pydantic import TypeAdapter

from cortex_core.canonical import (
    ChatPrompt,
    JsonObject,
    MediaPart,
    Message,
    Part,
    Ping,
    ReasoningPart,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from cortex_core.dialects.openai_responses import DecodedResponse
from cortex_core.dialects.openai_responses_body import ResponsesBody
from cortex_core.dialects.openai_responses_items import response_of_item
from cortex_core.dialects.openai_responses_tools import (
    NamedTool,
    WireChoice,
    WireTool,
    tools_asked,
)
from cortex_core.errors import InvalidRequest
from tests.unit.cortex_core.dialects.event_streams import REQUEST_ID, arguments_texts, names
from tests.unit.cortex_core.dialects.fixture_files import Responses
from tests.unit.cortex_core.dialects.sdk_fields import fields_of

RESPONSES = Responses()
ITEM: TypeAdapter[Any] = TypeAdapter(ResponseItem)


def decode(
    earlier: list[JsonObject] | None = None,
    stored: dict[str, JsonObject] | None = None,
    **fields: Any,
) -> DecodedResponse:
    body = json.dumps({"model": "small"} | fields).encode()
    wire = RESPONSES.read(body)
    return RESPONSES.decode(wire, request_id=REQUEST_ID, earlier=earlier or [], stored=stored)


def prompt(*args: Any, **fields: Any) -> ChatPrompt:
    made = decode(*args, **fields).request.prompt
    assert isinstance(made, ChatPrompt)
    return made


def said(role: Any, *texts: str) -> Message:
    return Message(role, tuple(TextPart(text) for text in texts))


def function(name: str, **fields: Any) -> JsonObject:
    return {"type": "function", "name": name, "parameters": {"type": "object"}} | fields


texts = st.text(max_size=8)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Message], list[JsonObject]]:
    """Turns, and the items that say the same."""
    messages: list[Message] = []
    items: list[JsonObject] = []
    for number in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["user", "system", "developer", "assistant", "tool"]))
        if kind == "tool":
            _add_output(messages, items, f"call_{number}", draw(texts), parts=draw(st.booleans()))
        elif kind == "assistant" and (not messages or messages[-1].role != "assistant"):
            _add_answer(messages, items, draw(st.lists(answer_parts, min_size=1, max_size=4)))
        elif kind != "assistant":
            _add_turn(messages, items, kind, draw(st.lists(texts, max_size=3)))
    if not items:
        _add_turn(messages, items, "user", ["hi"])
    return messages, items


def _add_turn(messages: Any, items: Any, role: str, content: list[str]) -> None:
    messages.append(said(role, *content))
    parts = [{"type": "input_text", "text": text} for text in content]
    items.append({"role": role, "content": content[0] if len(content) == 1 else parts})


def _add_output(messages: Any, items: Any, call_id: str, text: str, *, parts: bool) -> None:
    messages.append(Message("tool", (ToolResultPart(call_id, (TextPart(text),)),)))
    output = [{"type": "input_text", "text": text}] if parts else text
    items.append({"type": "function_call_output", "call_id": call_id, "output": output})


def _add_answer(messages: Any, items: Any, parts: list[Part]) -> None:
    messages.append(Message("assistant", tuple(parts)))
    items += [item_of(part) for part in parts]


answer_parts: st.SearchStrategy[Part] = st.one_of(
    st.builds(TextPart, texts),
    st.builds(ReasoningPart, st.text(min_size=1, max_size=8)),
    st.builds(ToolCallPart, names, names, arguments_texts),
)


def item_of(part: Part) -> JsonObject:
    match part:
        case TextPart(text=text):
            content = [{"type": "output_text", "text": text, "annotations": []}]
            return {"type": "message", "role": "assistant", "content": content}
        case ToolCallPart(id=call_id, name=name, arguments=arguments):
            call = {"call_id": call_id, "name": name, "arguments": arguments}
            return {"type": "function_call"} | call
        case ReasoningPart(text=text):
            return {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}
        case _:
            raise AssertionError(part)


@given(made=conversations(), cut=st.integers(0, 20))
def test_items_become_the_turns_that_they_say(
    made: tuple[list[Message], list[JsonObject]], cut: int
) -> None:
    messages, items = made
    decoded = decode(input=items)
    assert list(prompt(input=items).messages) == messages
    kept = list(decoded.items)
    for item in kept:
        ITEM.validate_python(item)
    assert len({item["id"] for item in kept}) == len(kept)
    assert all(response_of_item(item["id"]) == f"resp_{REQUEST_ID}" for item in kept)
    # What is kept says the same, be it all input or in part what came before.
    assert list(prompt(earlier=kept[:cut], input=items[cut:]).messages) == messages
    assert decode(input=kept).items == decoded.items


def test_input_may_be_a_text_and_instructions_come_first() -> None:
    earlier = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    made = prompt(earlier=earlier, input="c", instructions="Be brief.")
    assert [message.role for message in made.messages] == ["system", "user", "assistant", "user"]
    assert made.messages[0] == said("system", "Be brief.")
    assert decode(input="c", instructions="Be brief.").items[0]["content"] == [
        {"type": "input_text", "text": "c"}
    ]


def test_all_that_an_assistant_says_without_interruption_is_one_turn() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}
    made = prompt(
        input=[thought | {"summary": []}, refusal, call, {"role": "user", "content": "a"}]
    )
    turn = (ReasoningPart("hm"), TextPart("no"), ToolCallPart("c", "f", "{}"))
    assert made.messages == (Message("assistant", turn), said("user", "a"))


def test_images_files_and_sound_are_passed_on() -> None:
    content = [
        {"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "low"},
        {"type": "input_file", "file_url": "https://example.org/a.pdf"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,aGk="},
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
    ]
    (message,) = prompt(input=[{"role": "user", "content": content}]).messages
    assert message.content == (
        MediaPart("image", "image/png", b"hi", place="input[0].content[0].image_url"),
        MediaPart("file", url="https://example.org/a.pdf", place="input[0].content[1].file_url"),
        MediaPart("file", "application/pdf", b"hi", place="input[0].content[2].file_data"),
        MediaPart("audio", "audio/wav", b"hi", place="input[0].content[3].input_audio.data"),
    )


def test_what_only_openai_can_do_is_left_out_and_told() -> None:
    items = [
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "*** Begin"},
        {"type": "computer_call_output", "call_id": "c", "output": {"type": "screenshot"}},
        {"role": "user", "content": "hi"},
    ]
    tools = [function("f"), {"type": "web_search"}, {"type": "namespace", "name": "n", "tools": []}]
    decoded = decode(input=items, tools=tools, truncation="auto")
    assert prompt(input=items).messages == (said("user", "hi"),)
    left_out = ("input[0]", "input[1]", "input[2]", "input[3]", "tools[1]", "tools[2]")
    assert decoded.ignored == left_out
    warnings = decoded.asked["warnings"]
    assert [text.split(":")[0] for text in warnings] == [*left_out]
    assert "type 'web_search' is not served" in warnings[4]
    assert [tool["name"] for tool in decoded.asked["tools"]] == ["f"]
    assert "warnings" not in decode(input="hi").asked


def test_a_conversation_may_be_cut_to_the_context_where_that_is_asked_for() -> None:
    for truncation, truncates in (("auto", True), ("disabled", False), (None, False)):
        decoded = decode(input="hi", truncation=truncation)
        assert decoded.request.prompt.truncates is truncates
        assert decoded.asked["truncation"] == (truncation or "disabled")
        assert "warnings" not in decoded.asked
    with pytest.raises(InvalidRequest, match="truncation"):
        decode(input="hi", truncation="some")


F, G = Tool("f", None, {"type": "object"}), Tool("g", None, {"type": "object"}, strict=True)
ALLOWED_G = {"type": "allowed_tools", "tools": [{"type": "function", "name": "g"}]}


@pytest.mark.parametrize(
    ("choice", "tools", "mode"),
    [
        (None, (F, G), ToolChoice()),
        ("none", (F, G), ToolChoice("none")),
        ("required", (F, G), ToolChoice("required")),
        ({"type": "function", "name": "g"}, (F, G), ToolChoice("named", "g")),
        (ALLOWED_G | {"mode": "auto"}, (G,), ToolChoice()),
        (ALLOWED_G | {"mode": "required"}, (G,), ToolChoice("required")),
        ({"type": "web_search_preview"}, (F, G), ToolChoice()),
        ({"type": "custom", "name": "patch"}, (F, G), ToolChoice()),
        ({"type": "function", "name": "patch"}, (F, G), ToolChoice()),
    ],
)
def test_tools_and_the_choice_among_them(
    choice: Any, tools: tuple[Tool, ...], mode: ToolChoice
) -> None:
    sent = [function("f"), function("g", strict=True), {"type": "custom", "name": "patch"}]
    made = prompt(input="hi", tools=sent, tool_choice=choice)
    assert (made.tools, made.tool_choice) == (tools, mode)


class CountedName(str):
    """A name that counts how often it is compared."""

    __slots__ = ()
    num_compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        CountedName.num_compared += 1
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other


def test_allowed_tools_are_found_without_a_scan_for_each() -> None:
    names = [CountedName(f"f{number}") for number in range(200)]
    choice = WireChoice("allowed_tools", tools=[NamedTool(name=name) for name in names])
    made = tools_asked([WireTool(name=name) for name in names], choice)
    assert CountedName.num_compared <= 10 * len(names)
    assert [tool.name for tool in made.tools] == names


def test_a_required_tool_that_is_not_served_leaves_the_choice_to_the_model() -> None:
    decoded = decode(input="hi", tools=[{"type": "web_search"}], tool_choice="required")
    assert decoded.ignored == ("tools[0]", "tool_choice")
    assert decoded.asked["tool_choice"] == "auto"
    assert len(decoded.asked["warnings"]) == 2


def test_items_are_kept_as_the_published_schema_has_them() -> None:
    item = {"role": "user", "content": "hi"}
    (kept,) = decode(input=[item | {"status": "in_progress"}]).items
    assert kept["status"] == "in_progress"
    assert decode(input=[item | {"status": None}]).items[0]["status"] == "completed"
    for field in ("status", "id", "type"):
        with pytest.raises(InvalidRequest) as caught:
            decode(input=[item | {field: 5}])
        assert caught.value.param == f"input[0].{field}"


PATCH = {"type": "custom", "name": "patch"}


@pytest.mark.parametrize(
    ("mode", "allowed", "told"),
    [
        ("auto", [{"type": "web_search"}], ["tool_choice.tools[0]", "tool_choice.tools"]),
        ("auto", [{"type": "function", "name": "f"}, PATCH], ["tool_choice.tools[1]"]),
        ("auto", [{"type": "function", "name": "patch"}, {"name": "f"}], ["tool_choice.tools[0]"]),
        ("auto", [], ["tool_choice.tools"]),
        ("required", [PATCH], ["tool_choice.tools[0]", "tool_choice", "tool_choice.tools"]),
    ],
)
def test_allowed_tools_that_are_not_served_are_told(
    mode: str, allowed: list[JsonObject], told: list[str]
) -> None:
    choice = {"type": "allowed_tools", "mode": mode, "tools": allowed}
    decoded = decode(input="hi", tools=[function("f"), PATCH], tool_choice=choice)
    assert isinstance(decoded.request.prompt, ChatPrompt)
    assert decoded.request.prompt.tool_choice == ToolChoice()
    assert ("tool_choice.tools" in told) == (not decoded.request.prompt.tools)
    assert decoded.ignored == ("tools[1]", *told)
    warnings = decoded.asked["warnings"]
    assert [each.partition(":")[0] for each in warnings] == ["tools[1]", *told]


def test_members_without_effect_are_told() -> None:
    fields = {"max_tool_calls": 3, "service_tier": "batch", "text": {"verbosity": "low"}}
    decoded = decode(input="hi", **fields)
    assert set(decoded.ignored) == {"max_tool_calls", "service_tier", "text.verbosity"}
    assert len(decoded.asked["warnings"]) == 3
    assert decode(input="hi", text={"format": {"type": "text"}}).ignored == ()


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, ResponseFormat("json_object")),
        (
            {"type": "json_schema", "name": "a", "schema": {"type": "object"}},
            ResponseFormat("json_schema", {"type": "object"}),
        ),
        (
            {"type": "json_schema", "name": "a", "schema": {}, "strict": False},
            ResponseFormat("json_schema", {}, strict=False),
        ),
        ({"type": "regex", "regex": "a+"}, ResponseFormat("regex", text="a+")),
    ],
)
def test_the_form_of_the_text(wire: JsonObject, expected: ResponseFormat | None) -> None:
    assert decode(input="hi", text={"format": wire}).request.response_format == expected


@pytest.mark.parametrize(
    ("fields", "logprobs"),
    [
        ({}, None),
        ({"include": ["reasoning.encrypted_content"]}, None),
        ({"include": ["message.output_text.logprobs"]}, 0),
        ({"top_logprobs": 4}, 4),
        ({"top_logprobs": 0}, None),
    ],
)
def test_log_probabilities_are_given_where_they_are_asked_for(
    fields: dict[str, Any], logprobs: int | None
) -> None:
    assert decode(input="hi", **fields).request.sampling.logprobs == logprobs


def test_effort_and_limits() -> None:
    decoded = decode(input="hi", reasoning={"effort": "none"}, max_output_tokens=10**12, user="me")
    made = prompt(input="hi", reasoning={"effort": "none"})
    assert (made.reasoning_effort, made.template_kwargs) == ("none", {"enable_thinking": False})
    assert decoded.request.sampling.max_tokens == 2**31 - 1
    assert decoded.request.principal is not None
    assert decode(input="hi", max_tokens=5).request.sampling.max_tokens == 5
    for word in ("max_output_tokens", "max_tokens"):
        assert decode(input="hi", **{word: 40.0}).request.sampling.max_tokens == 40
        assert decode(input="hi", **{word: -1}).request.sampling.max_tokens is None
        with pytest.raises(InvalidRequest) as caught:
            decode(input="hi", **{word: 0.5})
        assert caught.value.param == word
    assert decode(input="hi", max_output_tokens=-1).asked["max_output_tokens"] is None
    assert repr(decode(input="hi", max_output_tokens=9.0).asked["max_output_tokens"]) == "9"
    assert prompt(input="hi", reasoning={"effort": "high"}).template_kwargs == {}


def test_what_a_response_repeats_is_what_the_sdk_expects() -> None:
    decoded = decode(
        input="hi",
        instructions="Be brief.",
        tools=[function("f", description="F")],
        tool_choice={"type": "function", "name": "f"},
        text={"format": {"type": "json_schema", "name": "a", "schema": {}}, "verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto"},
        metadata={"a": "b"},
        temperature=0.5,
        top_p=0.9,
        truncation="disabled",
        service_tier="auto",
        prompt_cache_key="k",
        safety_identifier="s",
        max_output_tokens=9,
        max_tool_calls=3,
        parallel_tool_calls=False,
        store=False,
        previous_response_id="resp_1",
    )
    encoder = RESPONSES.encoder(decoded, created=5)
    (_, first, *_) = encoder.event(Ping()).split(b"\n\n")
    sent = json.loads(first.split(b"data: ")[1])["response"]
    response = Response.model_validate(sent)
    assert response.id == f"resp_{REQUEST_ID}"
    assert response.text is not None
    assert response.text.verbosity == "low"
    assert response.text.format is not None
    assert response.text.format.type == "json_schema"
    assert response.metadata == {"a": "b"}
    assert response.previous_response_id == "resp_1"
    assert response.tools[0].type == "function"
    assert (response.temperature, response.top_p, response.max_output_tokens) == (0.5, 0.9, 9)
    assert sent["store"] is False
    assert not response.parallel_tool_calls


def test_an_empty_text_is_no_response_to_go_on_from() -> None:
    decoded = decode(input="hi", previous_response_id="")
    assert decoded.previous_response_id is None
    assert decoded.asked["previous_response_id"] is None


def test_references_are_replaced_by_what_is_stored() -> None:
    item = {"id": "msg_1", "role": "user", "content": "stored"}
    sent = [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_2"}]
    wire = RESPONSES.read(json.dumps({"model": "m", "input": sent}).encode())
    assert wire.references == ("msg_1", "msg_2")
    made = prompt(stored={"msg_1": item, "msg_2": item}, input=sent)
    assert made.messages == (said("user", "stored"),) * 2
    with pytest.raises(InvalidRequest, match="no item 'msg_1' is stored here"):
        decode(input=sent)


def test_a_reference_may_stand_once() -> None:
    sent = [{"type": "item_reference", "id": "msg_1"}, {"role": "user", "content": ""}]
    body = {"model": "m", "input": [*sent, {"id": "msg_1"}]}
    wire = RESPONSES.read(json.dumps(body).encode())
    with pytest.raises(InvalidRequest, match="item 'msg_1' is named twice") as caught:
        assert wire.references
    assert caught.value.param == "input[2].id"


@pytest.mark.parametrize("item_id", ["msg_1", "", "resp_0", f"msg_{REQUEST_ID}_", "x" * 99])
def test_ids_of_others_belong_to_no_response(item_id: str) -> None:
    assert response_of_item(item_id) is None


def test_every_field_that_the_sdk_knows_has_its_place() -> None:
    sdks = fields_of(response_create_params.ResponseCreateParamsStreaming, depth=2)
    wanted = {path for path in sdks if "." not in path or path.startswith("reasoning.")}
    assert len(wanted) > 30
    assert not wanted - fields_of(ResponsesBody, depth=2)


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("access_programs", ["a"], "access_programs"),
        ("background_options", {}, "background_options"),
        ("context_management", [{"type": "compaction"}], "context_management"),
        ("image", {"id": "a"}, "image"),
        ("prompt_cache_options", {"mode": "implicit"}, "prompt_cache_options"),
        ("prompt_cache_retention", "24h", "prompt_cache_retention"),
        ("reasoning", {"context": "auto"}, "reasoning.context"),
        ("reasoning", {"mode": "pro"}, "reasoning.mode"),
        (
            "include",
            ["reasoning.encrypted_content", "file_search_call.results"],
            "include[1]",
        ),
    ],
)
def test_what_has_no_effect_is_named(field: str, value: Any, place: str) -> None:
    decoded = decode(input="hi", **{field: value})
    assert decoded.ignored == (place,)
    assert decoded.asked["warnings"] == [f"{place}: not served, left out"]


def test_moderation_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(input="hi", moderation={"model": "omni-moderation-latest"})
    assert caught.value.param == "moderation"
