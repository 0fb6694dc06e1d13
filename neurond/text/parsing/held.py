"""Grammars for whole answers that are held to calls, or to calls or JSON. Pure."""

from typing import Final, NamedTuple

from cortex_core.canonical import ResponseFormat, Tool
from neurond.text.parsing.harmony import CHANNEL, CONSTRAIN, END, MESSAGE, START
from neurond.text.parsing.json_text import FIRST_KEYS
from neurond.text.parsing.lark import ANYTHING, Lark
from neurond.text.parsing.parser import CallFormat, ReasoningMarks

_BLANKS: Final = r"/[ \n]{0,2}/"
_NO_LIST: Final = r"/[ \t\r\n]{0,8}([^\s\[](.|\n)*)?/"
"""Text that does not begin as a list."""
_NO_CALL: Final = (
    r"/[ \t\r\n]{0,8}([^\s\[{](.|\n)*)?/ | "
    r"(/[ \t\r\n]{0,8}[\[{](.|\n)*/ & ~"
    rf'/\s*[\[{{]([\[{{\s]*"({"|".join(sorted(FIRST_KEYS))})"|\s*[\w.\-]+\()(.|\n)*/)'
)
"""Text that no call of JSON begins with: it has none of their first keys, and no `[name(`."""


class HeldAnswer(NamedTuple):
    """`several` calls may follow each other; where none is `required` there may be prose."""

    tools: tuple[Tool, ...]
    several: bool
    required: bool
    final: ResponseFormat | None = None
    """The form, of JSON, that an answer without calls has; None where that is prose."""


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
        thoughts = f"{lark.up_to(reasoning.closes)} {lark.rule(_BLANKS)}"
    elif reasoning is not None:
        opens = lark.text(f"{reasoning.opens}{reasoning.label}")
        thoughts = f"({opens} {lark.up_to(reasoning.closes)} {lark.rule(_BLANKS)})?"
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
    gap = lark.rule(_BLANKS) if opens != written.opens else ""
    one = lark.rule(f"{lark.up_to(opens)} {gap} {written.rest}")
    return lark.grammar(f"{thoughts} {one}* {lark.rule(ANYTHING)}")


def harmony_grammar(wanted: HeldAnswer, lark: Lark) -> str:
    """Return the grammar of an answer on harmony's channels, behind `<|start|>assistant`."""
    between = f"{lark.up_to(END)} {lark.text(START + 'assistant')}"
    thoughts = lark.rule(f"{lark.text(CHANNEL + 'analysis' + MESSAGE)} {between}")
    answers: list[str] = []
    for tool in wanted.tools:
        header = f"{CHANNEL}commentary to=functions.{tool.name} {CONSTRAIN}json{MESSAGE}"
        answers.append(f"{lark.text(header)} {lark.arguments(tool)}")
    if wanted.required:
        return lark.grammar(f"{thoughts}? {lark.any_of(answers)}")
    head = lark.text(CHANNEL + "final" + MESSAGE)
    if wanted.final is not None:
        # A preamble would be text before the JSON.
        answers.append(f"{head} {_json_of(lark, wanted.final)}")
        return lark.grammar(f"{thoughts}* {lark.any_of(answers)}")
    preamble = lark.rule(f"{lark.text(CHANNEL + 'commentary' + MESSAGE)} {between}")
    answers.append(f"{head} {lark.rule(ANYTHING)}")
    return lark.grammar(f"({thoughts} | {preamble})* {lark.any_of(answers)}")


def _json_of(lark: Lark, final: ResponseFormat) -> str:
    schema = {"type": "object"} if final.kind == "json_object" else final.schema or {}
    return lark.json(schema, strict=final.strict)
