"""Holding an answer to a form: which tokens may come next, told by llguidance.

llguidance reads a JSON schema, a regex or a grammar, and a token at a time says which tokens can
follow, as a bit for each token of the vocabulary (github.com/guidance-ai/llguidance). It works on
the bytes that tokens stand for, so an answer has its form whatever tokens it is made of.

A `GrammarCompiler` has one model's vocabulary and works in a thread of its own; the `TokenGrammar`s
that it makes go to the engine's thread, one for each sequence.
"""

from __future__ import annotations

import re
import time
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from cortex_core.canonical import JsonObject, ResponseFormat
from cortex_core.errors import InvalidRequest
from neurond.engine.triggered_grammar import TriggeredGrammar
from neurond.engine.triggers import DeviceFormat, TriggerWatch

PARAM: Final = "response_format"
LIMITS: Final = LLParserLimits(step_max_items=20_000, max_lexer_states=50_000, verbose_errors=False)
"""What llguidance may spend on one token, and keep for one sequence."""
MAX_MASK_S: Final = 0.05
"""Processor time for one mask; a usual one takes 0.0001, and everybody's step waits for it."""
MAX_DRAFTED_MASK_S: Final = 0.005
"""Of the last mask, where drafts are made: each has one of its own, in vain where it is wrong."""
MAX_COMPILED: Final = 32
"""Formats kept compiled: agents send the same few again and again."""
WHITESPACE: Final = r"[ \t\n\r]{1,24}"
"""Between the tokens of JSON; without a bound small models fill the context with blanks."""
MAX_EXACT: Final = 2**53
MAX_DETAIL_CHARS: Final = 300
_WORD_BITS: Final = 32
_EXPLAINED: Final = (
    (r"Unimplemented keys: \[(.*)\]", r"the schema has what is not supported: \1"),
    (r"oneOf constraints are not supported.*", "oneOf is not supported; say anyOf"),
    (
        r"Resource '(?:json-schema:///)?(.*?)' is not present in a registry.*",
        r"$ref or $schema names \1, and nothing outside of the schema is read",
    ),
    (r"((?:Anchor|Pointer) '.*' does not exist)", r"$ref leads nowhere: \1"),
    (
        r"Failed to generate regex for \w+ range: .*",
        "a minimum or maximum is beyond what can be kept to, ±2^63",
    ),
    (r"patternProperty (regexes .* are not disjoint)", r"patternProperties: \1"),
    (r"(regex parse error: .*)", r"pattern or patternProperties: \1"),
    (r"(lookarounds not supported.*)", r"pattern or patternProperties: \1"),
    (r"invalid multiple of", "multipleOf must be a number above 0"),
    (r"NoExtension.*", "no answer can have it"),
)
"""What llguidance says, and what names the client's own words."""


class TokenGrammar:
    """What one sequence may say next; it grows with the sequence's tokens.

    What comes behind drafted tokens is told by forks. They share nothing, so that what is drafted
    can neither spend the sequence's limits nor leave its matcher in an error. To copy a matcher
    takes 2 µs, 5 where it has taken 3,000 tokens.
    """

    def __init__(self, matcher: LLMatcher, num_words: int, ends: frozenset[int]) -> None:
        """`ends` are the tokens that end an answer; they are allowed where the form is whole."""
        self._matcher = matcher
        self._ends = ends
        self._ended = False
        self._mask_s = 0.0
        self._words = array("I", bytes(4 * num_words))

    holds_end = True
    """The answer ends where its form is whole, and there alone."""

    @property
    def is_complete(self) -> bool:
        """The answer has its form, and nothing can follow."""
        return self._ended or (self._matcher.is_stopped() and not self._matcher.is_error())

    @property
    def has_failed(self) -> bool:
        """It was given a token that cannot stand where it stood, or spent what it may."""
        return bool(self._matcher.is_error())

    def fork(self) -> TokenGrammar:
        """Return one in the same state for another sequence."""
        return TokenGrammar(self._matcher.deep_copy(), len(self._words), self._ends)

    def advance(self, token_id: int) -> bool:
        """Take the sequence's next token; return whether the answer is complete with it.

        A token that cannot stand here is told by `allowed`.
        """
        if token_id in self._ends and self._matcher.is_accepting():
            self._ended = True
        elif not self._ended:
            self._matcher.consume_token(token_id)
        return self.is_complete

    def fitting(self, token_ids: Sequence[int]) -> int:
        """See `Grammar.fitting`; none where masks take so long that no draft pays."""
        if self._mask_s > MAX_DRAFTED_MASK_S:
            return 0
        ahead = self._matcher.deep_copy()
        for count, token_id in enumerate(token_ids):
            taken = token_id not in self._ends and ahead.try_consume_tokens([token_id])
            if not taken or ahead.is_stopped():
                return count
        return len(token_ids)

    def forced(self) -> Sequence[int]:
        """See `Grammar.forced`; none in grammars with `no_forcing`."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    def warm_up(self) -> None:
        """Compute a first mask, which takes longer than any later one and has no bound on that.

        Raises:
            InvalidRequest: the grammar has failed, or no token can follow.
        """
        self._compute_mask()

    def allowed(self) -> array[int]:
        """Return a bit for each token that may come next, lowest first; valid until the next call.

        Raises:
            InvalidRequest: it takes more work than a token may take, the grammar has failed, or no
                token can follow.
        """
        began_s = time.thread_time()
        self._compute_mask()
        self._mask_s = time.thread_time() - began_s
        if self._mask_s > MAX_MASK_S:
            raise refuse("it takes too long to tell which tokens may come next; make it smaller")
        return self._words

    def _compute_mask(self) -> None:
        """Set the bits of the tokens that may come next."""
        words = self._words
        address, length = words.buffer_info()
        self._matcher.unsafe_compute_mask_ptr(address, length * words.itemsize)
        if self._matcher.is_error():
            raise refuse(self._matcher.get_error())
        accepting = self._matcher.is_accepting()
        for token in self._ends:
            word, bit = divmod(token, _WORD_BITS)
            words[word] = words[word] & ~(1 << bit) | accepting << bit
        if not any(words):
            raise refuse("no token of the model's vocabulary can follow")


class GrammarCompiler:
    """Compiles formats for one model. Called from one thread at a time."""

    def __init__(self, folder: Path, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        """Nothing is read before it is needed.

        Args:
            folder: of a prepared model, with its `tokenizer.json`.
            vocab_size: the width of the model's logits.
            eos_token_ids: the tokens that end an answer of the model.
        """
        self._path = folder / "tokenizer.json"
        self._vocab_size = vocab_size
        self._eos_token_ids = list(eos_token_ids)
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[bytes, LLMatcher] = OrderedDict()

    def compile(
        self, response_format: bytes, *, ends: Iterable[int], replayed: Sequence[int] = ()
    ) -> TokenGrammar:
        """Return the grammar of a `ResponseFormat`, given as JSON, after the output `replayed`.

        `ends` are tokens that end this answer beside the model's own.

        Raises:
            InvalidRequest: the format is wrong, or beyond what is supported; the message says how.
        """
        if self._tokenizer is None:
            self._tokenizer = self._open()
        matcher = self._matcher(response_format, self._tokenizer).deep_copy()
        num_words = -(-self._vocab_size // _WORD_BITS)
        grammar = TokenGrammar(matcher, num_words, frozenset((*self._tokenizer.eos_tokens, *ends)))
        for token_id in replayed:
            grammar.advance(token_id)
        if not grammar.is_complete:
            grammar.warm_up()
        return grammar

    def compile_triggered(
        self, wanted: DeviceFormat, *, ends: Iterable[int], replayed: Sequence[int] = ()
    ) -> TriggeredGrammar | None:
        """Return what holds an answer where its triggers say so, after the output `replayed`.

        None where there is none for this model: what compiles at all was found out before by who
        asks, and not whether its tokenizer can be read.
        """
        assert wanted.triggers is not None, "it holds the whole answer"
        form = ResponseFormat(wanted.kind, wanted.schema, wanted.text, wanted.strict)
        try:
            part = self.compile(msgspec.json.encode(form), ends=ends)
        except InvalidRequest:
            return None
        grammar = TriggeredGrammar(part, TriggerWatch(wanted.triggers))
        for token_id in replayed:
            grammar.advance(token_id)
        return grammar

    def _matcher(self, response_format: bytes, tokenizer: LLTokenizer) -> LLMatcher:
        matcher = self._compiled.get(response_format)
        if matcher is None:
            matcher = _compile(tokenizer, response_format)
            self._compiled[response_format] = matcher
            while len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(response_format)
        return matcher

    def _open(self) -> LLTokenizer:
        try:
            text = self._path.read_text(encoding="utf-8")
            # Where the model names no end, llguidance looks for one in the tokenizer.
            ends = self._eos_token_ids or None
            # llguidance keeps the interpreter to itself in each call: in two, steps come between.
            plain = LLTokenizer(text, n_vocab=self._vocab_size, eos_token=ends, slices=[])
            return plain.with_slices(LLTokenizer.general_slices())
        except (OSError, ValueError) as ex:
            raise refuse(f"the model's tokenizer cannot be used for it: {ex}") from ex


def check_format(response_format: bytes) -> None:
    """Compile a `ResponseFormat`, given as JSON, for a vocabulary of bytes, and forget it.

    Raises:
        InvalidRequest: as `GrammarCompiler.compile`.
    """
    matcher = _compile(LLTokenizer("byte"), response_format)
    matcher.compute_bitmask()
    if matcher.is_error():
        raise refuse(matcher.get_error())


def _compile(tokenizer: LLTokenizer, response_format: bytes) -> LLMatcher:
    text = grammar_text(msgspec.json.decode(response_format, type=ResponseFormat))
    matcher = LLMatcher(tokenizer, text, log_level=0, limits=LIMITS)
    if matcher.is_error():
        raise refuse(matcher.get_error())
    return matcher


def grammar_text(wanted: ResponseFormat) -> str:
    """Return a format in llguidance's own notation.

    Raises:
        InvalidRequest: it is not even one in form.
    """
    match wanted.kind:
        case "json_object":
            return _json_grammar({"type": "object"}, wanted)
        case "json_schema":
            return _json_grammar(wanted.schema or {}, wanted)
        case "regex":
            return LLMatcher.grammar_from_regex(wanted.text or "")
        case "grammar":
            return LLMatcher.grammar_from_lark(wanted.text or "")


def _json_grammar(schema: JsonObject, wanted: ResponseFormat) -> str:
    number = _inexact_literal(schema)
    if number is not None:
        raise refuse(f"{number} in a const or enum is beyond ±2^53, where numbers are not exact")
    text = msgspec.json.encode(schema).decode()
    try:
        return LLMatcher.grammar_from_json_schema(
            text, overrides={"whitespace_pattern": WHITESPACE, "lenient": not wanted.strict}
        )
    except ValueError as ex:
        raise refuse(str(ex)) from ex


def _inexact_literal(schema: JsonObject) -> float | None:
    """Return a number that llguidance, which takes literals as float64, might write otherwise."""
    left: list[tuple[Any, bool]] = [(schema, False)]
    while left:
        value, is_literal = left.pop()
        if isinstance(value, dict):
            left += [(one, is_literal or key in ("const", "enum")) for key, one in value.items()]
        elif isinstance(value, list):
            left += [(one, is_literal) for one in value]
        elif is_literal and isinstance(value, int | float) and abs(value) > MAX_EXACT:
            return value
    return None


def refuse(why: str) -> InvalidRequest:
    """Return the error of a request whose format cannot be kept to, for the caller to raise."""
    detail = " ".join(why.removesuffix("<non-verbose/>").split())
    for said, explained in _EXPLAINED:
        if matched := re.fullmatch(said, detail):
            detail = matched.expand(explained)
    if len(detail) > MAX_DETAIL_CHARS:
        detail = f"{detail[:MAX_DETAIL_CHARS]}…"
    return InvalidRequest(f"cannot hold the answer to {PARAM}: {detail}", param=PARAM)
