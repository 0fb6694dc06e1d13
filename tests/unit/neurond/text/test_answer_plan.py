"""What answers are held to: calls, the client's own form, or both."""

import msgspec
import pytest
from tokenizers import AddedToken

from cortex_core.canonical import (
    ChatPrompt,
    GenerateRequest,
    ResponseFormat,
    SamplingParams,
    Tool,
    ToolChoice,
)
from cortex_core.errors import InvalidRequest
from cortex_core.ids import ModelId, RequestId
from neurond.engine.triggers import DeviceFormat, Triggers
from neurond.text.answer_plan import AnswerPlan, about_tools, answer_plan
from neurond.text.parsing.answer_format import AnswerFormat
from neurond.text.parsing.families import Parsers
from neurond.text.pieces import TokenPieces
from tests.fakes.tokenizers_made import byte_level

PIECES = TokenPieces(byte_level())
HERMES = Parsers("hermes", "none")
JSON = ResponseFormat("json_object")
STRICT = Tool("kept", None, {"properties": {"a": {"type": "integer"}}}, strict=True)
LOOSE = Tool("loose", None, {"properties": {"zz": {"type": "string", "pattern": "(?=a)"}}})


def plan(
    *tools: Tool,
    wanted: ResponseFormat | None = None,
    mode: str = "auto",
    parsers: Parsers = HERMES,
    prompt: str = "",
    pieces: TokenPieces = PIECES,
) -> AnswerPlan:
    choice = ToolChoice(mode, "loose" if mode == "named" else None)  # type: ignore[arg-type]
    request = GenerateRequest(
        RequestId("r"),
        ModelId("file:/made"),
        ChatPrompt((), tools=tools, tool_choice=choice),
        SamplingParams(),
        response_format=wanted,
    )
    ids = byte_level().encode(prompt, add_special_tokens=False).ids
    return answer_plan(request, AnswerFormat(parsers, pieces), ids)


def test_calls_that_may_be_stand_beside_json() -> None:
    made = plan(LOOSE, wanted=JSON)
    assert made.parsing is not None
    assert made.asked == JSON
    assert made.response_format is not None
    assert made.response_format.kind == "grammar"


def test_json_is_behind_thoughts_that_the_model_may_have() -> None:
    think = Parsers("hermes", "think")
    made = plan(wanted=JSON, parsers=think)
    assert made.asked == JSON
    assert made.parsing is not None
    done = plan(wanted=JSON, parsers=think, prompt="<think>\n\n</think>\n\n")
    assert done == AnswerPlan(JSON, JSON, None)
    assert plan(wanted=JSON, parsers=Parsers("harmony", "harmony")).asked == JSON


def test_a_form_that_says_all_is_held_to_as_it_came() -> None:
    assert plan(wanted=JSON) == AnswerPlan(JSON, JSON, None)
    assert plan(wanted=JSON, mode="required") == AnswerPlan(JSON, JSON, None)
    assert plan(LOOSE, wanted=JSON, mode="none") == AnswerPlan(JSON, JSON, None)
    regex = ResponseFormat("regex", text="a")
    assert plan(LOOSE, STRICT, wanted=regex) == AnswerPlan(regex, regex, None)


@pytest.mark.parametrize("mode", ["required", "named"])
def test_a_required_call_goes_before_json(mode: str) -> None:
    assert (
        plan(LOOSE, wanted=JSON, mode=mode).response_format
        == plan(LOOSE, mode=mode).response_format
    )


def test_tools_that_are_not_strict_can_be_left_loose() -> None:
    other = msgspec.structs.replace(LOOSE, name="other", parameters={"properties": {"yy": {}}})
    made = plan(LOOSE, STRICT, other)
    assert made.trial is not None
    assert "zz" in (made.trial.text or "")
    assert made.loosened is not None
    again = made.loosened(["loose", "kept"])
    assert again.trial is not None
    assert "zz" not in (again.trial.text or "")
    assert "integer" in (again.trial.text or "")
    assert "yy" in (again.trial.text or "")
    assert again.parsing is made.parsing
    assert again.loosened is None
    assert plan(STRICT).loosened is None


def test_tools_can_be_tried_apart() -> None:
    made = plan(LOOSE, STRICT, mode="required")
    assert made.apart is not None
    both, strict = made.apart(["loose"]), made.apart([])
    assert both == made.trial
    assert strict is not None
    assert "zz" not in (strict.text or "")
    alone = plan(LOOSE, mode="named").apart
    assert alone is not None
    assert alone([]) is None


def test_calls_that_may_be_are_held_from_their_marker_on() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False)])
    marker = tokenizer.token_to_id("<tool_call>")
    made = plan(LOOSE, pieces=TokenPieces(tokenizer))
    assert isinstance(made.response_format, DeviceFormat)
    assert made.response_format.triggers == Triggers((marker,))
    assert made.parsing is not None
    assert made.parsing.triggers == made.held_calls.triggers == Triggers((marker,))
    assert plan(LOOSE, pieces=TokenPieces(tokenizer), mode="none").response_format is None
    assert plan(LOOSE).response_format is None


def test_an_error_names_the_tool_where_it_can() -> None:
    error = InvalidRequest("cannot hold the answer to response_format: why", param="x")
    assert about_tools(error, [STRICT]).message == (
        "cannot hold calls to the tool kept's parameters: why"
    )
    assert about_tools(error, [STRICT, STRICT]).message == (
        "cannot hold calls to the tools' parameters: why"
    )
