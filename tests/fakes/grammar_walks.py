"""Random answers under a grammar: what a model without sense would say, byte by byte."""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from cortex_core.canonical import JsonObject, ResponseFormat
from neurond.engine.grammar import GrammarCompiler, TokenGrammar
from tests.fakes.tokenizers_made import EOS, model_tokenizer

CLOSING = b"}],:x@.b"
"""Bytes that bring JSON, and the patterns of `schemas_made`, to an end."""


class Speller:
    """A grammar compiler over a small tokenizer, and the bytes of that tokenizer's tokens."""

    def __init__(self, tokenizer: Tokenizer, folder: Path, *, padding: int = 0) -> None:
        """`padding` tokens of the vocabulary are in the model only."""
        tokenizer.save(str(folder / "tokenizer.json"))
        self.vocab_size = tokenizer.get_vocab_size() + padding
        end = tokenizer.token_to_id(EOS)
        assert end is not None
        self.end = end
        self.pieces = model_tokenizer(tokenizer).pieces
        self.compiler = GrammarCompiler(folder, self.vocab_size, (end,))
        self.tokens = {self.pieces.piece(id_): id_ for id_ in range(self.vocab_size)}
        self._longest = max(map(len, self.tokens))

    def compile(
        self,
        wanted: ResponseFormat,
        *,
        ends: Iterable[int] | None = None,
        replayed: Iterable[int] = (),
    ) -> TokenGrammar:
        return self.compiler.compile(
            msgspec.json.encode(wanted),
            ends=(self.end,) if ends is None else ends,
            replayed=list(replayed),
        )

    def schema(self, schema: JsonObject, *, strict: bool = True) -> TokenGrammar:
        return self.compile(ResponseFormat("json_schema", schema=schema, strict=strict))

    def spell(self, text: str) -> list[int]:
        """Return one token for each byte of `text`."""
        return [self.tokens[bytes([byte])] for byte in text.encode()]

    def allowed(self, grammar: TokenGrammar) -> set[int]:
        return bits_of(grammar.allowed())

    def accepts(self, grammar: TokenGrammar, text: str) -> bool:
        """Whether a whole answer can be `text`: said in the longest tokens that masks allow.

        Where only one text can follow, llguidance allows the model's own spelling alone.
        """
        said, rest = grammar.fork(), text.encode()
        while rest:
            if said.is_complete:
                return False
            allowed = said.allowed()
            lengths = range(min(len(rest), self._longest), 0, -1)
            found = (self.tokens.get(rest[:length]) for length in lengths)
            token = next((one for one in found if one is not None and has_bit(allowed, one)), None)
            if token is None:
                return False
            said.advance(token)
            rest = rest[len(self.pieces.piece(token)) :]
        return said.is_complete or has_bit(said.allowed(), self.end)

    def walk(self, grammar: TokenGrammar, seed: int, *, max_tokens: int = 400) -> bytes | None:
        """Return a random answer, or None if it has not come to its end after so many tokens."""
        chance = random.Random(seed)
        answer = b""
        for number in range(max_tokens):
            if grammar.is_complete:
                return answer
            allowed = sorted(self.allowed(grammar))
            hurry = chance.random() < number / 40
            token = chance.choice(self._hurried(allowed) if hurry else allowed)
            answer += self.pieces.piece(token)
            if grammar.advance(token) or token == self.end:
                return answer
        return None

    def _hurried(self, allowed: list[int]) -> list[int]:
        """Return the tokens that end most."""
        for wanted in (
            [self.end],
            self.spell('"'),
            [self.tokens[bytes([byte])] for byte in CLOSING],
        ):
            found = [token for token in wanted if token in allowed]
            if found:
                return found
        return allowed


def has_bit(words: Sequence[int], token: int) -> bool:
    return bool(words[token // 32] >> token % 32 & 1)


def bits_of(words: Iterable[int]) -> set[int]:
    """Return the tokens whose bit is set."""
    return {
        32 * place + bit for place, word in enumerate(words) for bit in range(32) if word >> bit & 1
    }
