"""All families' formats over a small vocabulary, and random answers that grammars let through."""

import json
import random
from pathlib import Path

import jsonschema
from tokenizers import AddedToken, Tokenizer

from cortex_core.canonical import ChatPrompt, ResponseFormat, Tool, ToolChoice
from cortex_core.neuron_api import ReasoningParserName, ToolParserName
from neurond.engine.grammar import TokenGrammar
from neurond.text.parsing.answer_format import AnswerFormat, HeldForm
from neurond.text.parsing.families import CALL_FORMATS, REASONING_MARKS, Parsers
from neurond.text.parsing.harmony import HARMONY_MARKERS
from neurond.text.parsing.parser import NOT_HELD, HeldCalls, joined
from neurond.text.parsing.segments import Call
from tests.fakes.grammar_walks import Speller, bits_of
from tests.fakes.tokenizers_made import byte_level
from tests.fakes.transcripts import Told, told

SEARCH = Tool(
    "search",
    None,
    {
        "type": "object",
        "properties": {
            "where": {"type": "string", "enum": ["web", "files"]},
            "most": {"type": "integer", "minimum": 1, "maximum": 9},
            "deep": {"type": "boolean"},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 2},
        },
        "required": ["where", "most"],
        "$defs": {"tag": {"type": "string", "enum": ["a", "b"]}},
    },
)
SAY = Tool(
    "say", None, {"type": "object", "properties": {"it": {"type": "string"}}, "required": ["it"]}
)
NOTHING = Tool("nothing", None, None)
STRICT = Tool("say", None, SAY.parameters, strict=True)
TOOLS = (SEARCH, NOTHING)
SCHEMAS = {tool.name: tool.parameters or {"type": "object"} for tool in (*TOOLS, SAY)}
ALL = [*CALL_FORMATS, "harmony"]
CLOSING = (b'"', b"}", b"]", b")", b"<", b"</arg_value>", b'<|"|>', b"<escape>")
BEGINS = {b"{", b" ", b"\n", b"\t", b"\r", b"\n\n"}
TAG_END = "\n</parameter>\n"


def tokenizer(*, special: bool) -> Tokenizer:
    """A token for each byte, and all markers of all families, as special tokens or as others."""
    made = byte_level()
    texts = {marker for each in CALL_FORMATS.values() for marker in each.markers} - {"functools"}
    texts |= HARMONY_MARKERS
    texts |= {text for marks in REASONING_MARKS.values() for text in (marks.opens, marks.closes)}
    texts -= {text for text in texts if text.startswith(("Here", "```"))}
    tokens = [AddedToken(text, special=special, normalized=False) for text in sorted(texts)]
    made.add_special_tokens(tokens) if special else made.add_tokens(tokens)
    return made


class Family:
    """One family's format over a small vocabulary."""

    def __init__(self, made: Tokenizer, folder: Path) -> None:
        self.speller = Speller(made, folder)
        self.tokenizer = made

    def answers(
        self, tools: ToolParserName, reasoning: ReasoningParserName = "none"
    ) -> AnswerFormat:
        return AnswerFormat(Parsers(tools, reasoning), self.speller.pieces)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def walk(
        self,
        answers: AnswerFormat,
        held: HeldForm,
        seed: int,
        *,
        begins: str = "",
        spells: str = "",
    ) -> list[int] | None:
        """Return the tokens of a random answer that hurries to its end.

        `begins` is what it says at first, `spells` at last, where chance would not find to it.
        """
        grammar = self.speller.compile(ResponseFormat("grammar", text=held.grammar))
        chance = random.Random(seed)
        tokens: list[int] = []
        begun = self.ids(begins)
        for number in range(600):
            allowed = sorted(self.speller.allowed(grammar))
            if self.speller.end in allowed and number > 20:
                return tokens
            if number == 60:
                begun = self.ids(spells)
            closing = [token for token in allowed if answers.pieces.piece(token) in CLOSING]
            hurried = closing and chance.random() < 0.7
            taken = begun.pop(0) if begun else chance.choice(closing if hurried else allowed)
            tokens.append(taken)
            if taken == self.speller.end:
                return tokens[:-1]
            if grammar.advance(taken):
                return tokens
        return None


def special_texts(family: Family) -> set[str]:
    decoder = family.tokenizer.get_added_tokens_decoder()
    return {added.content for added in decoder.values() if added.special}


def prompt(
    mode: str,
    *tools: Tool,
    name: str | None = None,
    parallel: bool = True,
    goes_on: bool = False,
) -> ChatPrompt:
    return ChatPrompt(
        (),
        continue_final_message=goes_on,
        tools=tools,
        tool_choice=ToolChoice(mode, name),  # type: ignore[arg-type]
        parallel_tool_calls=parallel,
    )


def parse(
    answers: AnswerFormat,
    asked: ChatPrompt,
    tokens: list[int],
    held: HeldCalls = NOT_HELD,
    *,
    thinks: bool = False,
) -> list[Told]:
    made = answers.parser(asked, held, thinks=thinks, keep_blanks=False)
    assert made is not None
    text = b"".join(answers.pieces.piece(token) for token in tokens).decode("utf-8", "replace")
    return told(joined(made.push(text) + made.flush()))


def takes(family: Family, held: HeldForm | None, text: str) -> bool:
    """Whether a text, as a whole, is an answer that the grammar lets through."""
    assert held is not None
    grammar = family.speller.compile(ResponseFormat("grammar", text=held.grammar))
    return goes_through(grammar, family.ids(text), family.speller.end)


def goes_through(grammar: TokenGrammar, tokens: list[int], end: int) -> bool:
    if not begins_with(grammar, tokens):
        return False
    return grammar.is_complete or end in bits_of(grammar.allowed())


def begins_with(grammar: TokenGrammar, tokens: list[int]) -> bool:
    for token in tokens:
        if token not in bits_of(grammar.allowed()):
            return False
        grammar.advance(token)
    return True


def check_calls(segments: list[Told]) -> list[str]:
    calls = [segment for segment in segments if isinstance(segment, Call)]
    for call in calls:
        jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])
    return [call.name for call in calls]
