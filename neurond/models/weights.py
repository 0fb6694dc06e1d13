"""Checkpoint tensors that are read when they are asked for."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import EllipsisType

import torch


class LoadProgress:
    """Counts bytes read, from any thread, and tells how far that is.

    `report` gets the fraction read, 0 to 1, and is called from the reading threads, one at a time.
    """

    def __init__(self, total_bytes: int, report: Callable[[float], None]) -> None:
        self._total_bytes = max(total_bytes, 1)
        self._report = report
        self._lock = threading.Lock()
        self._read_bytes = 0

    def advance(self, size_bytes: int) -> None:
        """Count `size_bytes` more."""
        with self._lock:
            self._read_bytes += size_bytes
            self._report(min(self._read_bytes / self._total_bytes, 1.0))


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A tensor of a checkpoint, in the form in which transformers takes them: read by `[...]`."""

    read: Callable[[], torch.Tensor]
    size_bytes: int
    """In the file."""
    progress: LoadProgress
    is_wide: bool = False
    """Whether it is known to be a matrix for which the file has more bits than int4."""

    def __getitem__(self, everything: EllipsisType) -> torch.Tensor:
        tensor = self.read()
        self.progress.advance(self.size_bytes)
        return tensor
