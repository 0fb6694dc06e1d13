"""Which attention backend serves a device."""

from typing import Literal

BackendName = Literal["torch-reference"]


def choose_backend(compute_capability: tuple[int, int] | None, dtype: str) -> BackendName:
    """Return the fastest backend that serves models of `dtype` on such a device."""
    del compute_capability, dtype
    return "torch-reference"
