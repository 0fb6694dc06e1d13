"""The seam between the engine and a kind of device: all that differs between CPU and CUDA.

Opened once in an actor's life, in the process that owns the device.
"""

import weakref
from dataclasses import dataclass
from typing import Protocol

import torch

from cortex_core.errors import DeviceFailed, InternalError
from neurond.engine.cuda_graphs import CudaGraphs, Recording
from neurond.engine.decode_graphs import Recorder
from neurond.host import process_memory
from neurond.kernels.file_memory import borrowed_bytes


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

    def recorder(self) -> Recorder | None:
        """Return what records steps of one model; None where that is of no use."""
        ...

    def settle(self) -> None:
        """Wait for all that was submitted, and give back memory that is kept and not in use.

        From any thread; waits for a step that another one records.

        Raises:
            Exception: what the device has to say, if it is lost.
        """
        ...


class CpuDevice:
    """The host's processors, shared with everything else on the host."""

    name = "cpu"
    torch_device = torch.device("cpu")
    compute_capability = None

    def __init__(self, memory_budget_bytes: int | None) -> None:
        self._budget_bytes = memory_budget_bytes

    def memory_info(self) -> MemoryInfo:
        """Return host memory within the budget and the control group's limit."""
        memory = process_memory(self._budget_bytes, borrowed_bytes())
        return MemoryInfo(memory.total_bytes, memory.free_bytes)

    def recorder(self) -> None:
        """Return None: kernels are called here, not submitted."""
        return

    def settle(self) -> None:
        """Do nothing: all is done when it is submitted."""


class CudaDevice:
    """One CUDA device, the only one that this process sees."""

    def __init__(self, name: str, memory_budget_bytes: int | None) -> None:
        self.name = name
        self.torch_device = torch.device("cuda", 0)
        self._budget_bytes = memory_budget_bytes
        self._recording = Recording()
        self._idle_streams: list[torch.cuda.Stream] = []

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

    def recorder(self) -> CudaGraphs:
        """Return a recorder with memory and a stream of its own, until its last graph is gone.

        Streams are used again: torch has 32, the engines' among them, and hands out the first anew
        behind the last. Each that is used also keeps what cuBLAS works in, up to 32 MiB.
        """
        idle = self._idle_streams
        stream = idle.pop() if idle else torch.cuda.Stream(self.torch_device)
        recorder = CudaGraphs(self.torch_device, self._recording, stream)
        weakref.finalize(recorder, idle.append, stream).atexit = False
        return recorder

    def settle(self) -> None:
        """See `Device.settle`."""
        with self._recording.turn:
            torch.cuda.synchronize(self.torch_device)
            torch.cuda.empty_cache()


def _start_cuda(name: str) -> None:
    """Make the context, compute something, and give this thread a stream of its own.

    Weights that are loaded meanwhile are copied by other threads, and in a common stream what they
    do would stand before the next step.

    Raises:
        DeviceFailed: it cannot be done; the message says why and what can be.
    """
    try:
        torch.cuda.init()
        torch.cuda.set_device(0)
        torch.ones(1, device="cuda").add_(1).item()
        torch.cuda.set_stream(torch.cuda.Stream())
    except (RuntimeError, AssertionError) as ex:
        raise DeviceFailed(f"cannot use {name}: {_first_line(ex)}{_advice()}") from ex


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _advice() -> str:
    """Return what may be amiss with this torch, as the end of a message."""
    if torch.version.cuda is None:
        return (
            f"; torch {torch.__version__} is built without CUDA: install one that is built with it"
        )
    kinds = ", ".join(torch.cuda.get_arch_list())  # empty where the driver does not start
    return (
        f"; torch {torch.__version__} is built for CUDA {torch.version.cuda}"
        + (f" and devices of {kinds}" if kinds else "")
        + ": driver and device must fit that"
    )


def open_device(name: str, threads: int, memory_budget_bytes: int | None) -> Device:
    """Open the device called `name` and set this process up for it.

    Of CUDA devices the process sees its own alone, under torch's index 0: its supervisor has set
    CUDA_VISIBLE_DEVICES, so that no context is ever made on a neighbour.

    Args:
        name: `cpu` or `cuda-N`.
        threads: threads that torch computes with on the host.
        memory_budget_bytes: most that this process may use of the device; None is all of it.

    Raises:
        InternalError: no device has such a name.
        DeviceFailed: there is none, or it cannot be used.
    """
    torch.set_num_threads(threads)
    if name == "cpu":
        return CpuDevice(memory_budget_bytes)
    if name.startswith("cuda-"):
        _start_cuda(name)
        return CudaDevice(name, memory_budget_bytes)
    raise InternalError(f"cannot open device {name!r}: it is neither cpu nor of CUDA")
