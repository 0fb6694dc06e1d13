"""Reading the front of safetensors files: which tensors, and whether the file is whole."""

import struct
from pathlib import Path
from typing import Any, Final

import msgspec

from cortex_core.errors import ModelLoadFailed
from neurond.sources.layer_weights import StoredTensor

MAX_HEADER_BYTES: Final = 100 * 1024 * 1024
"""The limit of the safetensors library itself."""


def read_tensors(paths: list[Path]) -> list[StoredTensor]:
    """Return the tensors of all files together.

    Raises:
        ModelLoadFailed: a file is corrupt or cut short; the message names it.
    """
    return [tensor for path in paths for tensor in _read(path)]


def _read(path: Path) -> list[StoredTensor]:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"its header claims {length} bytes")
            header: dict[str, Any] = msgspec.json.decode(file.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        needed, size = 8 + length + end, path.stat().st_size
        if size < needed:
            raise ValueError(f"it has {size} bytes of the {needed} that its header promises")
        return [
            StoredTensor(name, tuple(map(int, entry["shape"])), _span_bytes(entry["data_offsets"]))
            for name, entry in header.items()
        ]
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        struct.error,
    ) as ex:
        raise ModelLoadFailed(
            f"cannot read {path}: not a complete safetensors file ({ex}); fetch it again"
        ) from ex


def _span_bytes(offsets: list[int]) -> int:
    start, end = offsets
    return end - start
