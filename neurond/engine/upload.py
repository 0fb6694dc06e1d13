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
    if isinstance(values, array):
        # As a sequence of numbers an array takes a hundred times as long.
        host = torch.tensor(np.frombuffer(values, np.int32), dtype=dtype)
    else:
        host = torch.tensor(values, dtype=dtype)
    if device.type == "cpu":
        return host
    # From pageable memory the copy would first wait for what the device still has to do.
    return host.pin_memory().to(device, non_blocking=True)
