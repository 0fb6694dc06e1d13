"""Which attention backend serves a model on a device."""

from collections.abc import Iterable
from typing import Literal

BackendName = Literal["torch-reference", "torch-varlen", "flash-attn-2"]

FLASH_MIN_MAJOR = 8
FLASH_DTYPES = frozenset({"float16", "bfloat16"})
FLASH_MAX_HEAD_DIM = 256
FLASH_HEAD_DIM_MULTIPLE = 8


def choose_backend(
    compute_capability: tuple[int, int] | None,
    dtype: str,
    head_dims: Iterable[tuple[int, int]],
    *,
    has_flash2: bool,
    has_softcap: bool = False,
) -> BackendName:
    """Return the fastest backend that serves such layers on such a device.

    Args:
        compute_capability: of a CUDA device; None for the CPU.
        head_dims: of keys and of values, for each layer.
        has_flash2: whether flash-attn 2 can be imported.
        has_softcap: whether a layer caps its scores, which torch's own flash-attn cannot.
    """
    if compute_capability is None or compute_capability[0] < FLASH_MIN_MAJOR:
        return "torch-reference"
    if dtype not in FLASH_DTYPES:
        return "torch-reference"
    if not all(_flash_takes(key_dim, value_dim) for key_dim, value_dim in head_dims):
        return "torch-reference"
    if has_flash2:
        return "flash-attn-2"
    return "torch-reference" if has_softcap else "torch-varlen"


def takes_paged_decodes(key_dim: int, value_dim: int) -> bool:
    """Tell whether the Triton kernels take such heads, on a device that Triton knows."""
    return key_dim == value_dim and key_dim <= FLASH_MAX_HEAD_DIM


def _flash_takes(key_dim: int, value_dim: int) -> bool:
    aligned = key_dim % FLASH_HEAD_DIM_MULTIPLE == 0
    return key_dim == value_dim and key_dim <= FLASH_MAX_HEAD_DIM and aligned
