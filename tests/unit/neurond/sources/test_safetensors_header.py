"""What tensors there are, without reading them."""

import struct
from pathlib import Path

import msgspec
import pytest

from cortex_core.errors import ModelLoadFailed
from neurond.sources.layer_weights import StoredTensor
from neurond.sources.safetensors_header import read_tensors


def written(folder: Path, header: bytes, data: bytes) -> Path:
    path = folder / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def header_of(shape: list[int], end: int) -> bytes:
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}
    return msgspec.json.encode({"__metadata__": {"format": "pt"}, "w": entry})


def test_tensors_of_all_files_are_listed(tmp_path: Path) -> None:
    path = written(tmp_path, header_of([2, 3], 24), b"\0" * 24)
    assert read_tensors([path, path]) == [StoredTensor("w", (2, 3), 24)] * 2


@pytest.mark.parametrize("data_bytes", [0, 23])
def test_a_truncated_file_is_named(tmp_path: Path, data_bytes: int) -> None:
    path = written(tmp_path, header_of([2, 3], 24), b"\0" * data_bytes)
    with pytest.raises(ModelLoadFailed, match=r"m\.safetensors: not a complete"):
        read_tensors([path])


@pytest.mark.parametrize(
    "header", [b"", b"[]", b"{", b'{"w": 3}', b'{"w": {"shape": "x"}}', b"[" * 5000]
)
def test_a_wrong_header_is_refused(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(ModelLoadFailed, match=r"m\.safetensors"):
        read_tensors([written(tmp_path, header, b"")])


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60))
    with pytest.raises(ModelLoadFailed, match="claims"):
        read_tensors([path])
