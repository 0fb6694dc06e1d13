"""Which tools are held to their parameters: all that can be, and what it costs to find out."""

from collections.abc import Iterator

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
from cortex_core.errors import InternalError, InvalidRequest, Overloaded
from cortex_core.ids import ModelId, RequestId
from neurond.text.answer_plan import AnswerPlan, answer_plan
from neurond.text.format_checker import FormatChecker
from neurond.text.format_trials import MAX_APART, FormatTrials
from neurond.text.parsing.answer_format import AnswerFormat
from neurond.text.parsing.families import Parsers
from neurond.text.pieces import TokenPieces
from neurond.text.pool import TextPool
from tests.fakes.tokenizers_made import byte_level

BAD = "cannot be held"


class Refusing(FormatChecker):
    """Refuses what has a word in it."""

    def __init__(
        self, *, most_chars: int = 1_000_000, overloaded: bool = False, breaks: bool = False
    ) -> None:
        super().__init__()
        self._breaks = breaks
        self.tried: list[bytes] = []
        self._most_chars = most_chars
        self._overloaded = overloaded

    async def check(self, response_format: bytes) -> None:
        self.tried.append(response_format)
        if self._breaks:
            raise InternalError("cannot check response_format: the process ended")
        if self._overloaded:
            raise Overloaded("cannot check response_format: busy", retry_after_s=1.0)
        if BAD.encode() in response_format or len(response_format) > self._most_chars:
            raise InvalidRequest(f"cannot hold the answer to response_format: {BAD}")


def tool(name: str, *, bad: bool = False, strict: bool = False) -> Tool:
    word = BAD if bad else f"of {name}"
    return Tool(name, None, {"properties": {name: {"const": word}}}, strict=strict)


def tools(*bad: int, num: int = 24) -> tuple[Tool, ...]:
    return tuple(tool(f"t{number:02}", bad=number in bad) for number in range(num))


def plan(*tools: Tool, mode: str = "auto", wanted: ResponseFormat | None = None) -> AnswerPlan:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False)])
    choice = ToolChoice(mode, tools[0].name if mode == "named" else None)  # type: ignore[arg-type]
    request = GenerateRequest(
        RequestId("r"),
        ModelId("file:/made"),
        ChatPrompt((), tools=tools, tool_choice=choice),
        SamplingParams(),
        response_format=wanted,
    )
    answers = AnswerFormat(Parsers("hermes", "none"), TokenPieces(tokenizer))
    return answer_plan(request, answers, [])


@pytest.fixture
def pool() -> Iterator[TextPool]:
    made = TextPool(threads=1)
    yield made
    made.close()


def held_to(encoded: bytes | None, names: tuple[Tool, ...]) -> set[str]:
    """Return the tools whose parameters stand in a format; it has the names of all."""
    text = msgspec.json.decode(encoded or b"", type=ResponseFormat).text or ""
    assert all(each.name in text for each in names)
    return {each.name for each in names if f"of {each.name}" in text}


@pytest.mark.parametrize("mode", ["auto", "required"])
@pytest.mark.parametrize("bad", [(), (0,), (23,), (7, 8)])
async def test_only_tools_that_cannot_be_held_are_loosened(
    pool: TextPool, mode: str, bad: tuple[int, ...]
) -> None:
    checker, asked = Refusing(), tools(*bad)
    encoded = await FormatTrials(checker, pool).format_of(plan(*asked, mode=mode))
    good = [each for number, each in enumerate(asked) if number not in bad]
    assert held_to(encoded, asked) == {each.name for each in good}
    assert BAD.encode() not in (encoded or b"")
    assert len(checker.tried) <= (MAX_APART + 2 if bad else 1)


async def test_what_is_not_found_in_time_is_loosened(pool: TextPool) -> None:
    asked = tools(*range(0, 64, 2), num=64)
    checker = Refusing()
    encoded = await FormatTrials(checker, pool).format_of(plan(*asked))
    assert BAD.encode() not in (encoded or b"")
    assert len(checker.tried) <= MAX_APART + 2


async def test_tools_are_not_told_apart_for_long(pool: TextPool) -> None:
    times = iter([0.0, 1.0, *[10.0] * 100])
    checker, asked = Refusing(), tools(*range(0, 64, 2), num=64)
    encoded = await FormatTrials(checker, pool, lambda: next(times)).format_of(plan(*asked))
    assert BAD.encode() not in (encoded or b"")
    assert len(checker.tried) <= 5


async def test_a_strict_tool_that_is_not_called_is_beside_the_point(pool: TextPool) -> None:
    asked = (tool("t00", bad=True), tool("t01", strict=True))
    encoded = await FormatTrials(Refusing(), pool).format_of(plan(*asked, mode="named"))
    assert b"t00" in (encoded or b"")
    assert BAD.encode() not in (encoded or b"")


@pytest.mark.parametrize("most_chars", [2000, 1500])
async def test_where_it_is_all_together_all_are_loosened(pool: TextPool, most_chars: int) -> None:
    asked = tools(num=8)
    loosest = plan(
        *(msgspec.structs.replace(each, parameters={"type": "object"}) for each in asked)
    )
    trial = msgspec.json.encode(loosest.trial)
    checker = Refusing(most_chars=len(trial))
    encoded = await FormatTrials(checker, pool).format_of(plan(*asked))
    assert held_to(encoded, asked) == set()


async def test_calls_that_may_be_lead_to_no_error(pool: TextPool) -> None:
    asked = tools(3)
    loose = await FormatTrials(Refusing(overloaded=True), pool).format_of(plan(*asked))
    assert held_to(loose, asked) == set()
    assert await FormatTrials(Refusing(most_chars=1), pool).format_of(plan(*asked)) is None
    assert await FormatTrials(Refusing(breaks=True), pool).format_of(plan(*asked)) is None
    names = [f"{number:04}{'n' * 60}" for number in range(4096)]
    many = plan(*(Tool(name) for name in names))
    assert await FormatTrials(Refusing(overloaded=True), pool).format_of(many) is None


@pytest.mark.parametrize("mode", ["required", "named"])
async def test_required_calls_that_cannot_be_held_do(pool: TextPool, mode: str) -> None:
    asked = plan(*tools(3), mode=mode)
    with pytest.raises(Overloaded):
        await FormatTrials(Refusing(overloaded=True), pool).format_of(asked)
    with pytest.raises(InvalidRequest, match="the tools' parameters"):
        await FormatTrials(Refusing(most_chars=1), pool).format_of(asked)


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_a_strict_tool_that_cannot_be_held_is_named(pool: TextPool, mode: str) -> None:
    checker = Refusing()
    asked = plan(*tools(3), tool("kept", bad=True, strict=True), mode=mode)
    with pytest.raises(InvalidRequest, match="the tool kept's parameters"):
        await FormatTrials(checker, pool).format_of(asked)
    assert len(checker.tried) == 3


async def test_the_clients_own_form_is_to_blame_for_itself(pool: TextPool) -> None:
    wanted = ResponseFormat("json_schema", schema={"const": BAD})
    with pytest.raises(InvalidRequest, match="to response_format"):
        await FormatTrials(Refusing(), pool).format_of(plan(*tools(), wanted=wanted))
