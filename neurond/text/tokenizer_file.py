"""Reads `tokenizer.json` in pieces, so that no other thread waits for all of it.

`Tokenizer.from_file` holds the GIL from its begin to its end. The parts of a BPE tokenizer can be
read one by one, each of which holds it for less than half of that time (docs/adr/0024).
"""

from pathlib import Path
from typing import Any, Final

import msgspec
from tokenizers import AddedToken, Tokenizer, models

from cortex_core.decoding import UNDECODABLE

_NO_MODEL: Final = msgspec.Raw(b'{"type":"BPE","vocab":{},"merges":[]}')
_NO_TOKENS: Final = msgspec.Raw(b"[]")


class _Bpe(msgspec.Struct, tag_field="type", tag="BPE", forbid_unknown_fields=True):
    """The model of a tokenizer, as `models.BPE` takes it."""

    vocab: msgspec.Raw
    merges: msgspec.Raw
    dropout: float | None = None
    unk_token: str | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    fuse_unk: bool | None = None
    byte_fallback: bool | None = None
    ignore_merges: bool | None = None

    def read(self) -> models.BPE:
        vocab = msgspec.json.decode(self.vocab, type=dict[str, int])
        merges = msgspec.json.decode(self.merges, type=list[tuple[str, str]])
        options = {
            field: value
            for field in self.__struct_fields__
            if field not in ("vocab", "merges") and (value := getattr(self, field)) is not None
        }
        return models.BPE(vocab, merges, **options)


def read_tokenizer(path: Path) -> Tokenizer:
    """Return what `Tokenizer.from_file` does; it is called for what is not of the usual form.

    Raises:
        Exception: bare, as the library raises it; the file cannot be read or is no tokenizer.
    """
    try:
        parts = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
        model = msgspec.json.decode(parts["model"], type=_Bpe).read()
        added = msgspec.json.decode(parts["added_tokens"], type=list[dict[str, Any]])
    except (*UNDECODABLE, KeyError):
        return Tokenizer.from_file(str(path))
    rest = parts | {"model": _NO_MODEL, "added_tokens": _NO_TOKENS}
    tokenizer = Tokenizer.from_str(msgspec.json.encode(rest).decode())
    tokenizer.model = model
    tokenizer.add_tokens([_added(token) for token in added])
    return tokenizer


def _added(token: dict[str, Any]) -> AddedToken:
    options = {name: value for name, value in token.items() if name not in ("id", "content")}
    return AddedToken(token["content"], **options)
