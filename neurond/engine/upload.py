"""Host numbers to a device, without waiting for it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import torch


def upload(
    values: Sequence[float] | array[int], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Return a new tensor of `values` on `device`. The values may be changed afterwards.

    An array is one of int32.
    """
    host = _on_host(values, dtype)
    if device.type == "cpu":
        return host
    # From pageable memory the copy would first wait for what the device still has to do.
    return host.pin_memory().to(device, non_blocking=True)


def overwrite(tensor: torch.Tensor, values: array[int]) -> None:
    """Put int32 `values` into `tensor` [len(values)], int32, behind what reads its former ones.

    The values may be changed afterwards.
    """
    host = _on_host(values, torch.int32)
    # The pinned copy is not used again before the device has read it: torch's allocator sees to it.
    tensor.copy_(host if tensor.is_cpu else host.pin_memory(), non_blocking=True)


def _on_host(values: Sequence[float] | array[int], dtype: torch.dtype) -> torch.Tensor:
    if isinstance(values, array):
        # As a sequence of numbers an array takes a hundred times as long.
        return torch.tensor(np.frombuffer(values, np.int32), dtype=dtype)
    return torch.tensor(values, dtype=dtype)
