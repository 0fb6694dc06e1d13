"""Grammars for whole answers that are held to calls, or to calls or JSON. Pure."""

import json
from typing import Final, NamedTuple

from cortex_core.canonical import ResponseFormat, Tool
from neurond.text.parsing.harmony import CHANNEL, CONSTRAIN, END, MESSAGE, START
from neurond.text.parsing.json_text import FIRST_KEYS
from neurond.text.parsing.lark import ANYTHING, BLANKS, Lark
from neurond.text.parsing.parser import CallFormat, ReasoningMarks

_NO_LIST: Final = r"/[ \t\r\n]{0,8}([^\s\[](.|\n)*)?/"
"""Text that does not begin as a list."""
_CALL: Final = rf'/\s*[\[{{]([\[{{\s]*"({"|".join(sorted(FIRST_KEYS))})"|\s*[\w.\-]+\()(.|\n)*/'
"""Text that begins as a call of JSON does: with one of their first keys, or with `[name(`."""
_NO_CALL: Final = (
    r"/[ \t\r\n]{0,8}([^\s\[{](.|\n)*)?/ | "
    rf"(/[ \t\r\n]{{0,8}}[\[{{](.|\n)*/ & ~{_CALL})"
)
"""Text that no call of JSON begins with."""


class HeldAnswer(NamedTuple):
    """`several` calls may follow each other; where none is `required` there may be prose."""

    tools: tuple[Tool, ...]
    several: bool
    required: bool
    final: ResponseFormat | None = None
    """The form, of JSON, that an answer without calls has; None where that is prose."""
    goes_on: bool = False
    """The prompt ends in the answer's own text."""


def marked_grammar(
    wanted: HeldAnswer,
    lark: Lark,
    calls: CallFormat | None,
    reasoning: ReasoningMarks | None,
    *,
    thinks: bool,
) -> str:
    """Return the grammar of an answer of the common shape.

    Args:
        wanted: the calls.
        lark: an empty grammar.
        calls: how they are written; None only where there are no tools.
        reasoning: None where the model does not think, or has done so.
        thinks: the prompt ends in thoughts.
    """
    thoughts = ""
    if reasoning is not None and thinks:
        thoughts = f"{lark.up_to(reasoning.closes)} {lark.rule(BLANKS)}"
    elif reasoning is not None:
        opens = lark.text(f"{reasoning.opens}{reasoning.label}")
        thoughts = f"({opens} {lark.up_to(reasoning.closes)} {lark.rule(BLANKS)})?"
    if calls is None or not wanted.tools:
        assert wanted.final is not None, "without tools it is held to a form"
        return lark.grammar(f"{thoughts} {_json_of(lark, wanted.final)}")
    written = calls.written(lark, wanted.tools, several=wanted.several)
    if wanted.required or wanted.final is not None:
        one = f"{lark.text(written.opens)} {written.rest}" if written.opens else written.rest
        if written.between is not None:
            one = lark.list_of(lark.rule(one), several=wanted.several, between=written.between)
        if wanted.final is not None:
            one = lark.any_of([one, _json_of(lark, wanted.final)])
        return lark.grammar(f"{thoughts} {one}")
    if not written.opens:
        prose = lark.terminal(_NO_CALL if "{" in calls.bare else _NO_LIST)
        return lark.grammar(f"{thoughts} ({prose} | {written.rest})")
    # The parser takes a call also where the line does not end behind the marker.
    opens = written.opens.rstrip()
    gap = lark.rule(BLANKS) if opens != written.opens else ""
    one = lark.rule(f"{lark.up_to(opens)} {gap} {written.rest}")
    if written.bare is None:
        return lark.grammar(f"{thoughts} {one}* {lark.rule(ANYTHING)}")
    first = f"{_up_to(lark, opens)} {gap} {written.rest}"
    prose = f"{first} {one}* {lark.rule(ANYTHING)} | {lark.terminal(_NO_CALL)}"
    return lark.grammar(f"{thoughts} ({lark.rule(written.bare)} | {lark.rule(prose)})")


def triggered_grammar(wanted: HeldAnswer, lark: Lark, calls: CallFormat, marker: str) -> str:
    """Return the grammar of calls from behind `marker`, a token that they begin with, to their end.

    There may be less than all: what follows the end is free until the next marker.
    """
    written = calls.written(lark, wanted.tools, several=wanted.several)
    begins = written.opens.removeprefix(marker)
    # The parser takes a call also where the line does not end behind the marker.
    head = lark.text(begins) if begins.strip() else lark.rule(BLANKS)
    return lark.grammar(f"{head if begins else ''} {written.rest}")


def _up_to(lark: Lark, end: str) -> str:
    """Return an expression of text up to `end`, and that, which does not begin as a call."""
    if lark.is_special(end):
        return f"{lark.terminal(_NO_CALL)} {lark.text(end)}"
    whole = lark.terminal(f"({ANYTHING} {json.dumps(end)}) & ~{_CALL}")
    return lark.rule(whole, attributes="[lazy]")


def harmony_grammar(wanted: HeldAnswer, lark: Lark) -> str:
    """Return the grammar of an answer on harmony's channels, behind `<|start|>assistant`."""
    between = f"{lark.up_to(END)} {lark.text(START + 'assistant')}"
    thoughts = lark.rule(f"{lark.text(CHANNEL + 'analysis' + MESSAGE)} {between}")
    answers: list[str] = []
    going_on = between if wanted.goes_on else ""
    for tool in wanted.tools:
        header = f"{CHANNEL}commentary to=functions.{tool.name} {CONSTRAIN}json{MESSAGE}"
        answers.append(f"{lark.text(header)} {lark.arguments(tool)}")
    if wanted.required:
        return lark.grammar(f"{going_on} {thoughts}? {lark.any_of(answers)}")
    head = lark.text(CHANNEL + "final" + MESSAGE)
    if wanted.final is not None:
        # A preamble, or more of a turn that goes on, would be text before the JSON.
        text = _json_of(lark, wanted.final)
        if not wanted.goes_on:
            answers.append(f"{head} {text}")
            return lark.grammar(f"{thoughts}* {lark.any_of(answers)}")
        ends = lark.text(END + START + "assistant")
        calls = f" | {ends} {thoughts}* {lark.any_of(answers)}" if answers else ""
        return lark.grammar(f"{text}{calls}")
    preamble = lark.rule(f"{lark.text(CHANNEL + 'commentary' + MESSAGE)} {between}")
    answers.append(f"{head} {lark.rule(ANYTHING)}")
    held = f"({thoughts} | {preamble})* {lark.any_of(answers)}"
    if wanted.goes_on:
        held = f"{lark.rule(ANYTHING)} ({lark.text(END + START + 'assistant')} {held})?"
    return lark.grammar(held)


def _json_of(lark: Lark, final: ResponseFormat) -> str:
    schema = {"type": "object"} if final.kind == "json_object" else final.schema or {}
    return lark.json(schema, strict=final.strict)
