"""What bytes a token stands for, read off a tokenizer's decoder.

A decoder of the `tokenizers` library turns a list of tokens into text at once. Every causal
language model's decoder is, token by token, a mapping to bytes, with the text being those bytes as
UTF-8; taking it apart so makes streaming exact, one token at a time, without decoding anything
twice.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

import msgspec
from tokenizers import Tokenizer

from cortex_core.errors import ModelLoadFailed

NEUTRAL_STEPS: Final = frozenset({"Fuse", "Strip"})
"""`Strip` drops one space at the start of a whole text; what we decode continues a prompt."""
BYTE_TOKEN_CHARS: Final = len("<0x0A>")


class TokenPieces:
    """Token id to bytes, for one tokenizer. Safe to share between threads.

    Special tokens have no bytes; `content` has their text all the same.
    """

    def __init__(self, tokenizer: Tokenizer, *, shown: Collection[int] = ()) -> None:
        """Read the decoder; the special tokens `shown` have bytes all the same.

        Raises:
            ModelLoadFailed: the decoder is of a kind that does not work token by token.
        """
        self._tokenizer = tokenizer
        self._special = {
            id_ for id_, added in tokenizer.get_added_tokens_decoder().items() if added.special
        }.difference(shown)
        self._to_bytes = _byte_mapping(tokenizer)
        self._known: dict[int, bytes] = {}

    def piece(self, token_id: int) -> bytes:
        """Return the bytes that a token adds to the text; none for special and unknown ids."""
        known = self._known.get(token_id)
        if known is None:
            known = b"" if token_id in self._special else self._bytes(token_id)
            self._known[token_id] = known
        return known

    @property
    def added_tokens(self) -> Collection[str]:
        """The texts of the tokens that stand beside the vocabulary, special or not."""
        return {added.content for added in self._tokenizer.get_added_tokens_decoder().values()}

    def added_ids(self, texts: Collection[str]) -> dict[str, int]:
        """Return those of `texts` that are tokens beside the vocabulary, with their ids."""
        contents = {
            added.content: id_ for id_, added in self._tokenizer.get_added_tokens_decoder().items()
        }
        return {text: contents[text] for text in texts if text in contents}

    def is_special(self, token_id: int) -> bool:
        """Whether a token has no bytes."""
        return token_id in self._special

    def showing(self, token_ids: Collection[int]) -> "TokenPieces":
        """Return pieces in which these special tokens have bytes."""
        return TokenPieces(self._tokenizer, shown=token_ids) if token_ids else self

    def content(self, token_id: int) -> bytes:
        """Return what a token stands for, special ones as they are written."""
        return self._bytes(token_id)

    def text(self, token_ids: Iterable[int]) -> str:
        """Return tokens as one text, special ones as they are written."""
        pieces = [self.piece(id_) or self._bytes(id_) for id_ in token_ids]
        return b"".join(pieces).decode("utf-8", "replace")

    def _bytes(self, token_id: int) -> bytes:
        token = self._tokenizer.id_to_token(token_id) if token_id >= 0 else None
        return b"" if token is None else self._to_bytes(token)


def _byte_mapping(tokenizer: Tokenizer) -> Callable[[str], bytes]:
    decoder = tokenizer.decoder
    if decoder is None:
        # The library joins bare tokens with spaces.
        return lambda token: b" " + token.encode()
    steps = _steps(msgspec.json.decode(decoder.__getstate__()))
    replacements: list[tuple[str, str]] = []
    finish: Callable[[str], bytes] = str.encode
    for step in steps:
        match step:
            case {"type": "Replace", "pattern": {"String": pattern}, "content": content}:
                replacements.append((pattern, content))
            case {"type": "Metaspace", "replacement": replacement}:
                replacements.append((replacement, " "))
            case {"type": "ByteFallback"}:
                finish = _byte_fallback
            case {"type": "ByteLevel"}:
                finish = _byte_level
            case {"type": kind} if kind in NEUTRAL_STEPS:
                continue
            case _:
                raise ModelLoadFailed(
                    f"cannot stream text from a tokenizer whose decoder has a step {step!r}"
                )
    if not replacements:
        return finish
    return lambda token: finish(_replaced(token, replacements))


def _steps(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    if decoder.get("type") != "Sequence":
        return [decoder]
    return [step for inner in decoder["decoders"] for step in _steps(inner)]


def _replaced(token: str, replacements: list[tuple[str, str]]) -> str:
    for pattern, content in replacements:
        token = token.replace(pattern, content)
    return token


def _byte_fallback(token: str) -> bytes:
    """`<0x0A>` is a byte, anything else is text."""
    if len(token) == BYTE_TOKEN_CHARS and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes([int(token[3:5], 16)])
        except ValueError:
            pass
    return token.encode()


def _alphabet() -> dict[str, int]:
    """Return GPT-2's alphabet: printable bytes are themselves, the others follow from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + place): byte for place, byte in enumerate(others)}


_ALPHABET: Final = _alphabet()


def _byte_level(token: str) -> bytes:
    """Characters of the byte alphabet are bytes; a token with any other one is plain text."""
    try:
        return bytes([_ALPHABET[character] for character in token])
    except KeyError:
        return token.encode()
