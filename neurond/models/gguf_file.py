"""The layout of a GGUF file: which tensors it has and where, checked against its size.

Reads the header only. Everything is bounds-checked here, so that a truncated or garbled file is an
error with its name and never a fault inside numpy or torch. `gguf.GGUFReader` would read the same,
and builds an object for each of a vocabulary's strings: seconds.
"""

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

import gguf

from cortex_core.errors import ModelLoadFailed

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT_BYTES = 32
MAX_COUNT = 1 << 24
"""More strings, keys or tensors than any real file has; a garbled count fails early."""
MAX_DIMENSIONS = 4

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9

MetadataValue = int | float | bool | str | None
"""Arrays are None: the tokenizer's are long, and the config has been prepared already."""


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor lies. `shape` is in torch's order."""

    name: str
    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    offset_bytes: int
    """From the start of the file."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A GGUF file's header."""

    path: Path
    architecture: str
    tensors: tuple[GgufTensor, ...]


def read_gguf(path: Path) -> GgufFile:
    """Read the header of the GGUF file at `path`.

    Raises:
        ModelLoadFailed: the file is absent, truncated or not what this reads.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Header(data).read(path)
    except (OSError, ValueError, struct.error) as ex:
        raise ModelLoadFailed(f"cannot read {path}: {ex}; pull the model again") from ex


class _Header:
    """A cursor over the header's bytes. Raises ValueError or struct.error where they are wrong."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def read(self, path: Path) -> GgufFile:
        if self._bytes(4) != MAGIC:
            raise ValueError("it does not start with the bytes GGUF")
        version = self._scalar("I")
        if version not in VERSIONS:
            raise ValueError(f"it is GGUF version {version}, this reads {VERSIONS}")
        num_tensors, num_keys = self._count(), self._count()
        metadata = dict(self._pair() for _ in range(num_keys))
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str):
            raise ValueError("its metadata has no general.architecture")
        entries = [self._entry() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT_BYTES)
        if not isinstance(alignment, int) or alignment <= 0:
            raise ValueError(f"its general.alignment is {alignment!r}")
        start = -(-self._at // alignment) * alignment
        tensors = tuple(self._place(start, *entry) for entry in entries)
        return GgufFile(path, architecture, tensors)

    def _place(
        self, start: int, name: str, shape: tuple[int, ...], kind: int, offset: int
    ) -> GgufTensor:
        try:
            quantization = gguf.GGMLQuantizationType(kind)
        except ValueError:
            raise ValueError(f"tensor {name!r} has the unknown type {kind}") from None
        block_values, block_bytes = gguf.GGML_QUANT_SIZES[quantization]
        if not shape or shape[-1] % block_values or prod(shape) == 0:
            raise ValueError(
                f"tensor {name!r} has shape {shape}, which {quantization.name} cannot have"
            )
        size = prod(shape) // block_values * block_bytes
        end = start + offset + size
        if end > len(self._data):
            raise ValueError(
                f"tensor {name!r} ends at byte {end} of {len(self._data)}: it is truncated"
            )
        return GgufTensor(name, shape, quantization, start + offset, size)

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        dimensions = self._scalar("I")
        if dimensions > MAX_DIMENSIONS:
            raise ValueError(f"tensor {name!r} has {dimensions} dimensions")
        shape = struct.unpack(f"<{dimensions}Q", self._bytes(8 * dimensions))
        kind, offset = self._scalar("I"), self._scalar("Q")
        return name, tuple(reversed(shape)), kind, offset

    def _pair(self) -> tuple[str, MetadataValue]:
        key = self._string()
        return key, self._value(self._scalar("I"))

    def _value(self, kind: int) -> MetadataValue:
        if kind in _SCALARS:
            value: MetadataValue = self._scalar(_SCALARS[kind])
            return value
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            raise ValueError(f"its metadata has a value of the unknown type {kind}")
        item, count = self._scalar("I"), self._count()
        if item in _SCALARS:
            self._skip(count * struct.calcsize(f"<{_SCALARS[item]}"))
            return None
        if item != _STRING:
            raise ValueError(f"its metadata has an array of type {item}")
        for _ in range(count):
            self._skip(self._scalar("Q"))
        return None

    def _count(self) -> int:
        count: int = self._scalar("Q")
        if count > MAX_COUNT:
            raise ValueError(f"it claims {count} entries")
        return count

    def _string(self) -> str:
        return self._bytes(self._scalar("Q")).decode("utf-8", errors="replace")

    def _scalar(self, code: str) -> int:
        (value,) = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value  # type: ignore[no-any-return]  # struct knows types at run time only

    def _bytes(self, count: int) -> bytes:
        start = self._at
        self._skip(count)
        return self._data[start : self._at]

    def _skip(self, count: int) -> None:
        if self._at + count > len(self._data):
            raise ValueError("its header is cut off: it is truncated")
        self._at += count
