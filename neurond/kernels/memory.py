"""Memory that kernels write to: anonymous pages, zero at first, aligned to a page."""

import ctypes
import mmap
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from cortex_core.errors import OutOfMemory

KvFormat = Literal["bf16", "int8"]
"""What kernels keep keys and values in."""
HUGE_BYTES: Final = 1 << 22
"""Buffers of this size or more ask for huge pages: what a step reads of them lies far apart."""


class Buffer:
    """Anonymous memory, freed with its last reference; resident once it is written to."""

    def __init__(self, size_bytes: int) -> None:
        """Reserve `size_bytes`, at least one.

        Raises:
            OSError: there is no such memory.
        """
        mapped = mmap.mmap(-1, max(size_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if size_bytes >= HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
            mapped.madvise(mmap.MADV_HUGEPAGE)
        self.bytes: NDArray[np.uint8] = np.frombuffer(mapped, np.uint8)
        self.size_bytes = size_bytes
        self.address: int = address_of(self.bytes)


class KvPages:
    """K/V of all layers for `num_blocks` blocks, zero at first."""

    def __init__(self, layer_bytes: Sequence[int], num_blocks: int, kv_format: KvFormat) -> None:
        """Reserve pages for layers that take so many bytes each.

        Raises:
            OutOfMemory: the host does not give them.
        """
        self.num_blocks = num_blocks
        self.kv_format = kv_format
        self.size_bytes = sum(layer_bytes)
        try:
            self.layers = tuple(Buffer(size_bytes) for size_bytes in layer_bytes)
        except OSError as ex:
            raise OutOfMemory(
                f"cannot allocate a KV cache of {self.size_bytes} bytes: {ex.strerror}; give the "
                "model a smaller KV cache"
            ) from ex
        self.addresses = (ctypes.c_void_p * len(layer_bytes))(*(b.address for b in self.layers))

    def places(self, blocks: range) -> list[tuple[int, int]]:
        """Return where `blocks`, each the next after another, lie: address and bytes by layer."""
        sizes = [layer.size_bytes // self.num_blocks for layer in self.layers]
        return [
            (layer.address + size * blocks.start, size * len(blocks))
            for layer, size in zip(self.layers, sizes, strict=True)
        ]


def address_of(array: NDArray[np.generic]) -> int:
    """Return where a C-contiguous array begins; it stays there as long as the array lives."""
    assert array.flags.c_contiguous
    return int(array.ctypes.data)
