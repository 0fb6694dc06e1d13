"""One model's format of answers: parsers of them, and grammars that hold them to it. Pure.

Decided once, when the model's text is opened.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from cortex_core.canonical import ChatPrompt, ResponseFormat, Tool
from cortex_core.errors import InvalidRequest
from neurond.engine.triggers import Triggers
from neurond.text.parsing.families import CALL_FORMATS, REASONING_MARKS, Parsers
from neurond.text.parsing.harmony import CHANNEL, HARMONY_MARKERS, HarmonyParser
from neurond.text.parsing.held import (
    HeldAnswer,
    harmony_grammar,
    marked_grammar,
    triggered_grammar,
)
from neurond.text.parsing.lark import Lark
from neurond.text.parsing.parser import (
    NOT_HELD,
    AnswerParser,
    HeldCalls,
    MarkedParser,
    ReasoningMarks,
)
from neurond.text.parsing.segments import Tools
from neurond.text.pieces import TokenPieces

TAIL_TOKENS: Final = 16
"""Of a prompt, in which its template may have opened the model's thoughts."""


class HeldForm(NamedTuple):
    """Grammars in Lark's notation: for the model's vocabulary, and to be tried out without it."""

    grammar: str
    trial: str
    tools: tuple[Tool, ...]
    """Whose calls may come."""
    calls: HeldCalls
    """Where in the answer they are held. With triggers the grammars are of what follows these."""


class AnswerFormat:
    """How one model writes thoughts and calls. Immutable; used from any thread.

    Args:
        parsers: the ones that are used.
        pieces: the model's.
    """

    def __init__(self, parsers: Parsers, pieces: TokenPieces) -> None:
        self.parsers = parsers
        self._is_harmony = "harmony" in parsers
        self._calls = CALL_FORMATS.get(parsers.tools)
        self._reasoning = REASONING_MARKS.get(parsers.reasoning)
        added = pieces.added_ids(self._markers())
        special = {text: id_ for text, id_ in added.items() if pieces.is_special(id_)}
        self._hidden = frozenset(special)
        self._atoms = {
            text: id_ for text, id_ in added.items() if text in special or _looks_special(text)
        }
        self.pieces = pieces.showing(special.values())
        """With the special tokens that are markers of the format as text."""

    def parser(
        self,
        prompt: ChatPrompt,
        held: HeldCalls = NOT_HELD,
        *,
        thinks: bool,
        keep_blanks: bool,
    ) -> AnswerParser | None:
        """Return a parser for one choice; None where there is nothing to tell apart.

        Args:
            prompt: of the request.
            held: where calls are held; see `HeldForm`.
            thinks: the prompt ends in thoughts; see `opens_thoughts`.
            keep_blanks: see `AnswerParser`.
        """
        tools = tools_of(prompt)
        if self._is_harmony:
            return HarmonyParser(
                HARMONY_MARKERS,
                wants_calls=bool(tools) and self.parsers.tools != "none",
                wants_reasoning=self.parsers.reasoning != "none",
                held=CHANNEL in held.openers,
                keep_blanks=keep_blanks,
            )
        calls = self._calls if tools else None
        if calls is None and self._reasoning is None:
            return None
        return MarkedParser(
            self._reasoning,
            calls,
            Tools(tools, holds_strict=True),
            self._hidden,
            held=held,
            thinks=thinks,
            keep_blanks=keep_blanks,
        )

    def opens_thoughts(self, prompt_token_ids: Sequence[int]) -> bool:
        """Whether a prompt ends where the model's thoughts have begun."""
        if self._reasoning is None:
            return False
        opens = f"{self._reasoning.opens}{self._reasoning.label}".rstrip()
        return self._tail(prompt_token_ids).endswith(opens)

    def held_calls(self, prompt: ChatPrompt, prompt_token_ids: Sequence[int]) -> HeldForm | None:
        """Return what holds an answer to calls; None where it is free.

        Calls that may be of tools that are not strict are held behind a marker that is a token of
        its own, and not at all where the format has none.

        Raises:
            InvalidRequest: a call is required of a model whose calls are not parsed.
        """
        tools = prompt.tools
        mode = prompt.tool_choice.mode
        if not tools or mode == "none":
            return None
        if self.parsers.tools == "none":
            if mode == "auto":
                return None
            raise InvalidRequest(
                'cannot require a call: the model\'s profile has tool_parser = "none"',
                param="tool_choice",
            )
        if mode == "named":
            tools = tuple(tool for tool in tools if tool.name == prompt.tool_choice.name)
        wanted = HeldAnswer(
            tools=tools,
            several=prompt.parallel_tool_calls and mode != "named",
            required=mode != "auto",
            goes_on=prompt.continue_final_message,
        )
        if mode == "auto" and not any(tool.strict for tool in tools):
            return self._triggered_form(wanted, prompt_token_ids)
        return self._form(wanted, prompt_token_ids)

    def held_json(
        self, prompt: ChatPrompt, prompt_token_ids: Sequence[int], final: ResponseFormat
    ) -> HeldForm | None:
        """Return what holds an answer to calls that may be or else to JSON, behind thoughts.

        None where `final` says all: there are no calls, thoughts or channels.

        Args:
            prompt: of the request; it requires no call.
            prompt_token_ids: the prompt, rendered.
            final: the form of JSON.
        """
        tools = () if self.parsers.tools == "none" else tools_of(prompt)
        if not tools and not self._is_harmony and self._thoughts_left(prompt_token_ids) is None:
            return None
        wanted = HeldAnswer(
            tools,
            prompt.parallel_tool_calls,
            required=False,
            final=final,
            goes_on=prompt.continue_final_message,
        )
        return self._form(wanted, prompt_token_ids)

    def _form(self, wanted: HeldAnswer, prompt_token_ids: Sequence[int]) -> HeldForm:
        trial: dict[str, int | None] = dict.fromkeys(self._atoms)
        beside = wanted.final is not None and self._calls is not None and bool(self._calls.bare)
        return HeldForm(
            self._grammar(wanted, Lark(self._atoms, as_json=beside), prompt_token_ids),
            self._grammar(wanted, Lark(trial, as_json=beside), prompt_token_ids),
            wanted.tools,
            self._held(wanted),
        )

    def _triggered_form(
        self, wanted: HeldAnswer, prompt_token_ids: Sequence[int]
    ) -> HeldForm | None:
        """Return what holds calls from their marker on; None where that is no token of its own, or
        may stand in thoughts whose ends are none.
        """
        calls, reasoning = self._calls, self._reasoning
        if calls is None:  # harmony's marker is that of all channels
            return None
        opens = calls.written(Lark(self._atoms), (), several=False).opens
        marker = next((text for text in self._atoms if opens.startswith(text)), None)
        if marker is None:
            return None
        thoughts: tuple[int, int] | None = None
        # An opener that is no text ends thoughts; see `MarkedParser`.
        if reasoning is not None and marker not in self._hidden:
            ends = self._atoms.get(reasoning.opens), self._atoms.get(reasoning.closes)
            if ends[0] is None or ends[1] is None:
                return None
            thoughts = ends[0], ends[1]
        triggers = Triggers(
            (self._atoms[marker],),
            thoughts,
            thinks=thoughts is not None and self.opens_thoughts(prompt_token_ids),
        )
        lark = Lark(self._atoms, as_json=True, any_order=True)
        trial = Lark(dict.fromkeys(self._atoms), as_json=True, any_order=True)
        return HeldForm(
            triggered_grammar(wanted, lark, calls, marker),
            triggered_grammar(wanted, trial, calls, marker),
            wanted.tools,
            HeldCalls(triggers=triggers),
        )

    def _held(self, wanted: HeldAnswer) -> HeldCalls:
        """Return where the grammar of an answer is sure to be of a call.

        A marker that is a token of its own comes only where the grammar has it. As text it may
        stand in prose, and in strings of JSON.
        """
        atoms = frozenset(self._atoms)
        if self._is_harmony:
            return HeldCalls(openers=atoms & {CHANNEL})
        openers = frozenset(self._calls.openers) if self._calls is not None else frozenset()
        return HeldCalls(all=wanted.required, openers=atoms & openers, first=True)

    def _grammar(self, wanted: HeldAnswer, lark: Lark, prompt_token_ids: Sequence[int]) -> str:
        if self._is_harmony:
            return harmony_grammar(wanted, lark)
        reasoning = self._thoughts_left(prompt_token_ids)
        thinks = self.opens_thoughts(prompt_token_ids)
        return marked_grammar(wanted, lark, self._calls, reasoning, thinks=thinks)

    def _thoughts_left(self, prompt_token_ids: Sequence[int]) -> ReasoningMarks | None:
        """Return the marks of thoughts that the answer may begin with."""
        reasoning = self._reasoning
        if reasoning is not None and self._tail(prompt_token_ids).endswith(reasoning.closes):
            return None
        return reasoning

    def _tail(self, prompt_token_ids: Sequence[int]) -> str:
        tail = b"".join(self.pieces.piece(id_) for id_ in prompt_token_ids[-TAIL_TOKENS:])
        return tail.decode("utf-8", "replace").rstrip()

    def _markers(self) -> frozenset[str]:
        if self._is_harmony:
            return HARMONY_MARKERS
        markers = self._calls.markers if self._calls is not None else frozenset()
        if self._reasoning is None:
            return markers
        return markers | {self._reasoning.opens, self._reasoning.closes, *self._reasoning.drops}


def _looks_special(text: str) -> bool:
    """Whether llguidance takes an added token for special, so that its text does not match it."""
    return text.startswith("<") and text.endswith(">")


def tools_of(prompt: ChatPrompt) -> tuple[Tool, ...]:
    """Return the tools that the model may call."""
    return () if prompt.tool_choice.mode == "none" else prompt.tools
