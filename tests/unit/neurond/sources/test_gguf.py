"""Reading GGUF headers: whole files, and every way to be none."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import ModelLoadFailed
from neurond.sources.gguf import read_header, write_skeleton
from tests.fakes.gguf_made import gguf_bytes

WHOLE = gguf_bytes()
TOKENS = "tokenizer.ggml.tokens"


def written(folder: Path, content: bytes) -> Path:
    path = folder / "m.gguf"
    path.write_bytes(content)
    return path


def outcome(path: Path) -> str:
    try:
        read_header(path)
    except ModelLoadFailed as ex:
        return "refused by name" if str(path) in ex.message else ex.message
    return "read"


def test_metadata_and_tensors_are_read(tmp_path: Path) -> None:
    header = read_header(written(tmp_path, WHOLE))
    assert header.metadata["general.architecture"] == "llama"
    assert header.metadata["llama.block_count"] == 2
    assert header.metadata[TOKENS] == 3
    assert header.metadata["tokenizer.ggml.scores"] == [0.0, 1.0, 2.0]
    assert header.tensors[0].name == "token_embd.weight"
    assert sum(tensor.elements for tensor in header.stored_tensors()) == 64


def test_string_arrays_come_in_full_where_asked_for(tmp_path: Path) -> None:
    header = read_header(written(tmp_path, WHOLE), string_arrays={TOKENS})
    assert header.metadata[TOKENS] == ["a", "b", "é"]


def test_a_skeleton_is_the_same_file_without_its_large_arrays(tmp_path: Path) -> None:
    source = written(tmp_path, WHOLE)
    header = read_header(source)
    skeleton = tmp_path / "skeleton.gguf"
    write_skeleton(source, header, skeleton, without={TOKENS, "tokenizer.ggml.scores"})
    small = read_header(skeleton)
    assert small.tensors == header.tensors
    assert TOKENS not in small.metadata
    assert small.metadata["llama.block_count"] == 2


@given(st.integers(0, len(WHOLE) - 1))
def test_a_truncated_file_is_refused_by_name(tmp_path_factory, length: int) -> None:
    path = written(tmp_path_factory.mktemp("cut"), WHOLE[:length])
    with pytest.raises(ModelLoadFailed, match=r"cannot read .*m\.gguf: not a complete GGUF"):
        read_header(path)


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_read_but_never_crash(tmp_path_factory, content: bytes) -> None:
    path = written(tmp_path_factory.mktemp("any"), b"GGUF" + struct.pack("<I", 3) + content)
    assert outcome(path) in {"read", "refused by name"}


@given(st.integers(4, len(WHOLE) - 300), st.integers(0, 255))
def test_a_flipped_byte_is_refused_or_read_but_never_crashes(
    tmp_path_factory, place: int, value: int
) -> None:
    content = bytearray(WHOLE)
    content[place] = value
    path = written(tmp_path_factory.mktemp("flip"), bytes(content))
    assert outcome(path) in {"read", "refused by name"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a complete GGUF"),
        (b"PK\x03\x04" + b"\0" * 100, "does not begin with the letters GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version is 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0), "claims"),
    ],
)
def test_what_is_no_gguf_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(ModelLoadFailed, match=reason):
        read_header(written(tmp_path, content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match=r"gone\.gguf"):
        read_header(tmp_path / "gone.gguf")
