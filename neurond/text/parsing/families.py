"""Which format a model writes in: by what its profile says, else by its template. Pure."""
# ruff: noqa: RUF001 - DeepSeek's markers have bars of full width

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple, TypeVar

from cortex_core.neuron_api import ReasoningParserName, ToolParserName
from neurond.text.parsing import json_formats, python_format, tagged_formats
from neurond.text.parsing.parser import CallFormat, ReasoningMarks

Name = TypeVar("Name", ToolParserName, ReasoningParserName)
CALL_FORMATS: Final[dict[ToolParserName, CallFormat]] = {
    "hermes": json_formats.HERMES,
    "qwen3_coder": tagged_formats.QWEN_TAGS,
    "seed": tagged_formats.SEED,
    "llama": json_formats.LLAMA,
    "pythonic": python_format.PYTHONIC,
    "mistral": json_formats.MISTRAL,
    "deepseek_v3": json_formats.DEEPSEEK_V3,
    "deepseek_v31": json_formats.DEEPSEEK_V31,
    "kimi": json_formats.KIMI,
    "glm": tagged_formats.GLM,
    "gemma4": tagged_formats.GEMMA_4,
    "functiongemma": tagged_formats.FUNCTION_GEMMA,
    "phi": json_formats.PHI,
    "granite": json_formats.GRANITE,
    "json": json_formats.GENERIC,
}
REASONING_MARKS: Final[dict[ReasoningParserName, ReasoningMarks]] = {
    "think": ReasoningMarks("<think>", "</think>"),
    "mistral": ReasoningMarks("[THINK]", "[/THINK]"),
    "seed": ReasoningMarks("<seed:think>", "</seed:think>"),
    "gemma4": ReasoningMarks("<|channel>", "<channel|>", label="thought\n"),
    "granite": ReasoningMarks(
        "Here is my thought process:", "Here is my response:", drops=("<response>", "</response>")
    ),
}
_CALLS_BY_SIGN: Final[tuple[tuple[str, ToolParserName], ...]] = (
    ("<|constrain|>", "harmony"),
    ("<|channel|>", "harmony"),
    ("<start_function_call>", "functiongemma"),
    ("<|tool_call>", "gemma4"),
    ("[TOOL_CALLS]", "mistral"),
    ("<|tool_calls_section_begin|>", "kimi"),
    ("<｜tool▁calls▁begin｜>", "deepseek_v31"),
    ("<seed:tool_call>", "seed"),
    ("<arg_key>", "glm"),
    ("<parameter=", "qwen3_coder"),
    ("<|tool_call|>", "phi"),
    ("functools[", "phi"),
    ("<|/tool|>", "phi"),
    ("<tool_call>", "hermes"),
    ("<|python_start|>", "pythonic"),
    ("<function_calls>", "pythonic"),
    ("func_name1(", "pythonic"),
    ("<|python_tag|>", "llama"),
    ('Respond in the format {"name": function name', "llama"),
)
"""What a template has that knows how its model writes calls, the surest sign first. Signs in the
tokenizer are looked for where the template has none."""
_TOLD_IN_WORDS: Final[frozenset[ToolParserName]] = frozenset({"deepseek_v31", "phi"})
"""Families whose own templates show calls, or a turn's tools, but are not told of tools: how the
model is told is in `neurond.text.described_tools`."""
_REASONING_BY_SIGN: Final[tuple[tuple[str, ReasoningParserName], ...]] = (
    ("<|constrain|>", "harmony"),
    ("<|channel|>", "harmony"),
    ("<|channel>", "gemma4"),
    ("[THINK]", "mistral"),
    ("<seed:think>", "seed"),
    ("Here is my thought process:", "granite"),
    ("</think>", "think"),
)


class Parsers(NamedTuple):
    """What is used for a model."""

    tools: ToolParserName
    reasoning: ReasoningParserName


def recognised(
    template: str,
    added_tokens: Collection[str],
    *,
    knows_tools: bool,
    tools: ToolParserName | None = None,
    reasoning: ReasoningParserName | None = None,
) -> Parsers:
    """Return the parsers of a model.

    Args:
        template: Jinja text.
        added_tokens: the tokens of the tokenizer that stand beside its vocabulary.
        knows_tools: the template renders tools. Where it does not, they are described to the
            model, together with the format of calls: its family's where that has words for it,
            else `json`.
        tools: what the profile says.
        reasoning: what the profile says.
    """
    return Parsers(
        tools or _tools(template, added_tokens, knows_tools=knows_tools),
        reasoning or _reasoning(template, added_tokens),
    )


def _tools(template: str, added_tokens: Collection[str], *, knows_tools: bool) -> ToolParserName:
    if "<|channel|>" in template:
        return "harmony"
    name: ToolParserName = (
        _by_sign(_CALLS_BY_SIGN, template, added_tokens if knows_tools else ()) or "json"
    )
    if name == "deepseek_v31" and "```json" in template:
        name = "deepseek_v3"
    if not knows_tools:
        return name if name in _TOLD_IN_WORDS else "json"
    is_granite = name == "phi" and "<|start_of_role|>" in template
    return "granite" if is_granite else name


def _reasoning(template: str, added_tokens: Collection[str]) -> ReasoningParserName:
    return _by_sign(_REASONING_BY_SIGN, template, added_tokens) or "none"


def _by_sign(
    signs: Sequence[tuple[str, Name]], template: str, added_tokens: Collection[str]
) -> Name | None:
    """Return what the surest sign stands for. A tokenizer has tokens that its model never writes,
    so they are asked where the template tells nothing.
    """
    for place in (template, added_tokens):
        for sign, name in signs:
            if sign in place:
                return name
    return None
