"""A tokenizer that is read in pieces is the one that the library reads."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, processors

from neurond.text.tokenizer_file import read_tokenizer
from tests.fakes.tokenizers_made import BOS, byte_fallback, byte_level

TEXT = f"{BOS} hello  world, abc\n\n\tß 東京<think>1.5"


def with_merges() -> Tokenizer:
    """One with all that a BPE model, an added token and a tokenizer's other parts can be told."""
    characters = {character: place for place, character in enumerate("helowrd ")}
    vocabulary = characters | {"he": 8, "ll": 9, "hell": 10, "?": 11, "<x>": 12}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=[("h", "e"), ("l", "l"), ("he", "ll")],
            unk_token="?",
            fuse_unk=True,
            ignore_merges=True,
            end_of_word_suffix="",
        )
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_special_tokens([AddedToken("<x>", lstrip=True, rstrip=True)])
    tokenizer.add_tokens([AddedToken("World", single_word=True, normalized=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<x> $A", pair=None, special_tokens=[("<x>", 12)]
    )
    return tokenizer


def unigram() -> Tokenizer:
    return Tokenizer(models.Unigram([("?", 0.0), ("he", -1.0), ("l", -2.0)], unk_id=0))


def word_piece() -> Tokenizer:
    return Tokenizer(models.WordPiece({"[UNK]": 0, "hello": 1, "##s": 2}, unk_token="[UNK]"))


@pytest.mark.parametrize("make", [byte_level, byte_fallback, with_merges, unigram, word_piece])
def test_it_is_what_the_library_reads(make: Callable[[], Tokenizer], tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    make().save(str(path))

    assert_same(read_tokenizer(path), Tokenizer.from_file(str(path)))


def test_merges_as_older_files_write_them_are_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with_merges().save(str(path))
    content = json.loads(path.read_text())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    path.write_text(json.dumps(content))

    assert_same(read_tokenizer(path), with_merges())


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model": {"type": "BPE"}}'])
def test_what_is_no_tokenizer_is_refused_as_by_the_library(content: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)

    with pytest.raises(Exception, match="line 1 column"):
        read_tokenizer(path)


def assert_same(read: Tokenizer, whole: Tokenizer) -> None:
    assert read.to_str() == whole.to_str()
    for special in (True, False):
        assert read.encode(TEXT, add_special_tokens=special).ids == (
            whole.encode(TEXT, add_special_tokens=special).ids
        )
