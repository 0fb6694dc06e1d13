"""What a request's answer is held to, and how its text is taken apart. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from cortex_core.canonical import ChatPrompt, GenerateRequest, Prompt, ResponseFormat
from cortex_core.errors import InvalidRequest
from neurond.text.parsed_choice import Parsing
from neurond.text.parsing.answer_format import AnswerFormat


class AnswerPlan(NamedTuple):
    """`response_format` is for the device; `trial` for a process that has not its tokens."""

    response_format: ResponseFormat | None
    trial: ResponseFormat | None
    parsing: Parsing | None
    """None where the text is the answer, as it is."""
    holds_calls: bool = False
    """The form is that of calls, not the one that the client asked for."""


def answer_plan(
    request: GenerateRequest, answers: AnswerFormat | None, prompt_token_ids: Sequence[int]
) -> AnswerPlan:
    """Return the plan of a request.

    A call that is required goes before a `response_format`; that goes before calls that may be.

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
    if wanted is not None and prompt.tool_choice.mode not in ("required", "named"):
        return AnswerPlan(wanted, wanted, None)
    parsing = _parsing(request, prompt, answers, prompt_token_ids)
    held = answers.held_calls(prompt, prompt_token_ids)
    if held is None:
        return AnswerPlan(wanted, wanted, parsing)
    return AnswerPlan(
        ResponseFormat("grammar", text=held.grammar),
        ResponseFormat("grammar", text=held.trial),
        parsing,
        holds_calls=True,
    )


def may_hold_calls(prompt: Prompt) -> bool:
    """Whether the plan may take a grammar, which takes milliseconds to make of many tools."""
    if not isinstance(prompt, ChatPrompt) or not prompt.tools:
        return False
    required = prompt.tool_choice.mode in ("required", "named")
    return required or any(tool.strict for tool in prompt.tools)


def about_tools(error: InvalidRequest) -> InvalidRequest:
    """Return the error of a grammar of calls, which the client knows as its tools."""
    why = error.message.partition(": ")[2] or error.message
    return InvalidRequest(f"cannot hold calls to the tools' parameters: {why}", param="tools")


def _parsing(
    request: GenerateRequest,
    prompt: ChatPrompt,
    answers: AnswerFormat,
    prompt_token_ids: Sequence[int],
) -> Parsing | None:
    thinks = answers.opens_thoughts(prompt_token_ids)
    # A stop string that ends in a blank must not wait for what follows the blank.
    keep_blanks = any(stop[-1:].isspace() for stop in request.sampling.stop)
    parsers = [
        parser
        for _ in range(request.n)
        if (parser := answers.parser(prompt, thinks=thinks, keep_blanks=keep_blanks)) is not None
    ]
    if not parsers:
        return None
    return Parsing(request.request_id, answers.pieces, parsers, prompt.parallel_tool_calls)
