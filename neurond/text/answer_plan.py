"""What a request's answer is held to, and how its text is taken apart. Pure."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import msgspec

from cortex_core.canonical import ChatPrompt, GenerateRequest, JsonObject, ResponseFormat, Tool
from cortex_core.errors import InvalidRequest
from neurond.engine.triggers import DeviceFormat
from neurond.text.parsed_choice import Parsing
from neurond.text.parsing.answer_format import AnswerFormat, tools_of
from neurond.text.parsing.parser import NOT_HELD, HeldCalls


class AnswerPlan(NamedTuple):
    """`response_format` is for the device; `trial` for a process that has not its tokens."""

    response_format: ResponseFormat | None
    trial: ResponseFormat | None
    parsing: Parsing | None
    """None where the text is the answer, as it is."""
    asked: ResponseFormat | None = None
    """The client's own form where the one of the plan has more: what is wrong in it is its own."""
    held_tools: tuple[Tool, ...] = ()
    """Whose calls the form is about."""
    held_calls: HeldCalls = NOT_HELD
    """Where in the answer it holds them."""
    loosened: Callable[[Collection[str]], "AnswerPlan"] | None = None
    """Makes the plan that holds calls of the tools of these names, which are not strict, to any
    object. None where all are strict."""
    apart: Callable[[Collection[str]], ResponseFormat | None] | None = None
    """Makes the trial of these of the tools that are not strict, with all that are; None for none.
    There where `loosened` is."""


def answer_plan(
    request: GenerateRequest, answers: AnswerFormat | None, prompt_token_ids: Sequence[int]
) -> AnswerPlan:
    """Return the plan of a request.

    A call that is required goes before a `response_format`; calls that may be stand beside one of
    JSON, and behind any other.

    Args:
        request: its prompt may be a conversation or anything else.
        answers: the model's; None where it has no template.
        prompt_token_ids: the prompt, rendered.

    Raises:
        InvalidRequest: a call is required of a model whose calls are not parsed.
    """
    prompt = request.prompt
    wanted = request.response_format
    if answers is None or not isinstance(prompt, ChatPrompt):
        return AnswerPlan(wanted, wanted, None)
    if prompt.tools and prompt.tool_choice.mode in ("required", "named"):
        wanted = None
    if wanted is not None and wanted.kind not in ("json_object", "json_schema"):
        return AnswerPlan(wanted, wanted, None)
    plan = _held_plan(prompt, wanted, answers, prompt_token_ids)
    if plan is None and wanted is not None:
        return AnswerPlan(wanted, wanted, None)
    held_calls = NOT_HELD if plan is None else plan.held_calls
    parsing = _parsing(request, prompt, held_calls, answers, prompt_token_ids)
    if plan is None:
        return AnswerPlan(None, None, parsing)

    plan = plan._replace(parsing=parsing)
    if all(tool.strict for tool in plan.held_tools):
        return plan

    def loosened(names: Collection[str]) -> AnswerPlan:
        again = _held_plan(_with_loose_tools(prompt, names), wanted, answers, prompt_token_ids)
        assert again is not None, "there is as much to hold as before"
        return again._replace(parsing=parsing)

    callable_names = {tool.name for tool in plan.held_tools}

    def apart(names: Collection[str]) -> ResponseFormat | None:
        tools = tuple(tool for tool in prompt.tools if tool.strict or tool.name in names)
        if not any(tool.name in callable_names for tool in tools):
            return None
        few = msgspec.structs.replace(prompt, tools=tools)
        again = _held_plan(few, wanted, answers, prompt_token_ids)
        return again.trial if again is not None else None

    return plan._replace(loosened=loosened, apart=apart)


def may_hold_calls(request: GenerateRequest) -> bool:
    """Whether the plan may take a grammar, which takes milliseconds to make of many tools."""
    prompt = request.prompt
    return isinstance(prompt, ChatPrompt) and bool(tools_of(prompt))


def about_tools(error: InvalidRequest, tools: Sequence[Tool]) -> InvalidRequest:
    """Return the error of a grammar of calls, which the client knows as its tools.

    Args:
        error: of the grammar.
        tools: those that are held to their parameters.
    """
    why = error.message.partition(": ")[2] or error.message
    whose = f"the tool {tools[0].name}'s" if len(tools) == 1 else "the tools'"
    return InvalidRequest(f"cannot hold calls to {whose} parameters: {why}", param="tools")


def _held_plan(
    prompt: ChatPrompt,
    wanted: ResponseFormat | None,
    answers: AnswerFormat,
    prompt_token_ids: Sequence[int],
) -> AnswerPlan | None:
    """Return the plan, yet without parsing, of an answer that is held to more than `wanted`."""
    if wanted is None:
        held = answers.held_calls(prompt, prompt_token_ids)
    else:
        held = answers.held_json(prompt, prompt_token_ids, wanted)
    if held is None:
        return None
    return AnswerPlan(
        DeviceFormat("grammar", text=held.grammar, triggers=held.calls.triggers),
        ResponseFormat("grammar", text=held.trial),
        None,
        asked=wanted,
        held_tools=held.tools,
        held_calls=held.calls,
    )


def _with_loose_tools(prompt: ChatPrompt, names: Collection[str]) -> ChatPrompt:
    """Return the prompt with any object as parameters of the tools of these names."""
    anything: JsonObject = {"type": "object"}
    tools = tuple(
        tool
        if tool.strict or tool.name not in names
        else msgspec.structs.replace(tool, parameters=anything)
        for tool in prompt.tools
    )
    return msgspec.structs.replace(prompt, tools=tools)


def _parsing(
    request: GenerateRequest,
    prompt: ChatPrompt,
    held: HeldCalls,
    answers: AnswerFormat,
    prompt_token_ids: Sequence[int],
) -> Parsing | None:
    thinks = answers.opens_thoughts(prompt_token_ids)
    # A stop string that ends in a blank must not wait for what follows the blank.
    keep_blanks = any(stop[-1:].isspace() for stop in request.sampling.stop)
    parsers = [
        parser
        for _ in range(request.n)
        if (parser := answers.parser(prompt, held, thinks=thinks, keep_blanks=keep_blanks))
        is not None
    ]
    if not parsers:
        return None
    return Parsing(
        request.request_id,
        answers.pieces,
        parsers,
        prompt.parallel_tool_calls,
        held.triggers,
    )
