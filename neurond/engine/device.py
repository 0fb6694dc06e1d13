"""The seam between the engine and a kind of device: all that differs between CPU and CUDA.

Opened once in an actor's life, in the process that owns the device.
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from cortex_core.errors import InternalError
from neurond.host import process_memory


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """Bytes of the device, or of the budget where that is less."""

    total_bytes: int
    free_bytes: int


class Device(Protocol):
    """A place where tensors live and are computed on."""

    @property
    def name(self) -> str:
        """`cpu`, `cuda-0`."""
        ...

    @property
    def torch_device(self) -> torch.device: ...

    @property
    def compute_capability(self) -> tuple[int, int] | None:
        """Of a CUDA device; None on others."""
        ...

    def memory_info(self) -> MemoryInfo: ...


class CpuDevice:
    """The host's processors, shared with everything else on the host."""

    name = "cpu"
    torch_device = torch.device("cpu")
    compute_capability = None

    def __init__(self, memory_budget_bytes: int | None) -> None:
        self._budget_bytes = memory_budget_bytes

    def memory_info(self) -> MemoryInfo:
        """Return host memory within the budget and the control group's limit."""
        memory = process_memory(self._budget_bytes)
        return MemoryInfo(memory.total_bytes, memory.free_bytes)


class CudaDevice:
    """One CUDA device, the only one that this process sees."""

    def __init__(self, name: str, index: int, memory_budget_bytes: int | None) -> None:
        self.name = name
        self.torch_device = torch.device("cuda", index)
        self._budget_bytes = memory_budget_bytes
        torch.cuda.set_device(self.torch_device)

    @property
    def compute_capability(self) -> tuple[int, int]:
        """Major and minor."""
        return torch.cuda.get_device_capability(self.torch_device)

    def memory_info(self) -> MemoryInfo:
        """Return the device's memory; what torch has cached and not in use counts as free."""
        free_bytes, total_bytes = torch.cuda.mem_get_info(self.torch_device)
        reserved_bytes = torch.cuda.memory_reserved(self.torch_device)
        in_use_bytes = torch.cuda.memory_allocated(self.torch_device)
        free_bytes += reserved_bytes - in_use_bytes
        if self._budget_bytes is not None:
            total_bytes = min(total_bytes, self._budget_bytes)
            free_bytes = min(free_bytes, max(0, total_bytes - in_use_bytes))
        return MemoryInfo(total_bytes, free_bytes)


def open_device(name: str, threads: int, memory_budget_bytes: int | None) -> Device:
    """Open the device called `name` and set this process up for it.

    Of CUDA devices the process sees its own alone, under torch's index 0: its supervisor has set
    CUDA_VISIBLE_DEVICES, so that no context is ever made on a neighbour.

    Args:
        name: `cpu` or `cuda-N`.
        threads: threads that torch computes with on the host.
        memory_budget_bytes: most that this process may use of the device; None is all of it.

    Raises:
        InternalError: there is no such device.
    """
    torch.set_num_threads(threads)
    if name == "cpu":
        return CpuDevice(memory_budget_bytes)
    if name.startswith("cuda-") and torch.cuda.device_count() > 0:
        return CudaDevice(name, 0, memory_budget_bytes)
    raise InternalError(
        f"cannot open device {name!r}: torch sees {torch.cuda.device_count()} CUDA devices"
    )
