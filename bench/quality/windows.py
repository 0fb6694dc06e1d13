"""Cuts texts into the sequences that models are asked about."""

from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer

from neurond.sources.prepared import PreparedModel


def windows(
    folder: Path, manifest: PreparedModel, texts: Mapping[str, str], length: int, count: int
) -> list[list[int]]:
    """Return `count` sequences of `length` tokens, taken from the texts in turn.

    Each begins with the model's begin-of-sequence token if plain text gets one.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    begin = manifest.bos_token if manifest.adds_bos else None
    bos = None if begin is None else tokenizer.token_to_id(begin)
    start = [] if bos is None else [bos]
    room = length - len(start)
    encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts.values()]
    places = [ids[at : at + room] for at in range(0, count * room, room) for ids in encoded]
    whole = [start + ids for ids in places if len(ids) == room]
    return whole[:count]
