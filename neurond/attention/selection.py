"""Which attention backend serves a model on a device."""

from collections.abc import Iterable
from typing import Literal

BackendName = Literal["torch-reference", "flash-attn-2"]

FLASH2_MIN_MAJOR = 8
FLASH2_DTYPES = frozenset({"float16", "bfloat16"})
FLASH2_MAX_HEAD_DIM = 256
FLASH2_HEAD_DIM_MULTIPLE = 8


def choose_backend(
    compute_capability: tuple[int, int] | None,
    dtype: str,
    head_dims: Iterable[tuple[int, int]],
    *,
    has_flash2: bool,
) -> BackendName:
    """Return the fastest backend that serves such layers on such a device.

    Args:
        compute_capability: of a CUDA device; None for the CPU.
        head_dims: of keys and of values, for each layer.
        has_flash2: whether flash-attn 2 can be imported.
    """
    if compute_capability is None or not has_flash2:
        return "torch-reference"
    if compute_capability[0] < FLASH2_MIN_MAJOR or dtype not in FLASH2_DTYPES:
        return "torch-reference"
    if not all(_flash2_takes(key_dim, value_dim) for key_dim, value_dim in head_dims):
        return "torch-reference"
    return "flash-attn-2"


def _flash2_takes(key_dim: int, value_dim: int) -> bool:
    aligned = key_dim % FLASH2_HEAD_DIM_MULTIPLE == 0
    return key_dim == value_dim and key_dim <= FLASH2_MAX_HEAD_DIM and aligned
