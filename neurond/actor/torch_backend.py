"""What an actor computes with: torch, on the device that it is told to open."""

import gc
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from cortex_core.errors import CortexError, InternalError, ModelLoadFailed, OutOfMemory
from cortex_core.ids import ModelId
from cortex_core.logs import kv
from neurond.actor.backend import OpenedDevice, ServedModel
from neurond.engine.device import Device, open_device
from neurond.kernels.library import NoKernels, Pool, load_kernels
from neurond.kernels.packed_file import WeightFormat
from neurond.memory_plan import PACKED_DTYPES, weights_bytes
from neurond.models.host_serving import HostServing
from neurond.models.loader import load_model
from neurond.models.packed_loader import load_packed
from neurond.models.serving import ModelServing, Serving, preferred_backend
from neurond.protocol import Configure, LoadModel, ModelLoaded
from neurond.sources.prepared import PreparedModel, read_manifest

log = logging.getLogger(__name__)


class TorchBackend:
    """See `neurond.actor.backend.Backend`."""

    def __init__(self) -> None:
        self._device: Device | None = None
        self._threads = 1
        self._pool: Pool | None = None  # of the CPU kernels, once a model needs them

    def open(self, configure: Configure) -> OpenedDevice:
        """Open the device and set torch's number of threads."""
        self._device = open_device(
            configure.device, configure.threads, configure.memory_budget_bytes
        )
        self._threads = configure.threads
        memory = self._device.memory_info()
        return OpenedDevice(
            attention_backend=preferred_backend(self._device, "bfloat16"),
            memory_total_bytes=memory.total_bytes,
            memory_free_bytes=memory.free_bytes,
        )

    def load(self, command: LoadModel, on_progress: Callable[[float], None]) -> ServedModel:
        """Load weights and allocate the KV cache.

        Raises:
            ModelLoadFailed: the model cannot be read, or not be served.
            OutOfMemory: weights and cache do not fit; the message has the arithmetic.
        """
        assert self._device is not None, "the device is opened first"
        folder = Path(command.model_dir)
        manifest = read_manifest(folder)
        _refuse_too_large(self._device, manifest, command)
        if command.dtype in PACKED_DTYPES:
            return self._load_packed(folder, manifest, command, on_progress)
        loaded = load_model(folder, manifest, command.dtype, self._device, on_progress)
        serving = Serving(
            loaded,
            context_tokens=command.context_tokens,
            max_sequences=command.max_sequences,
            kv_cache_bytes=command.kv_cache_bytes,
            block_tokens=command.block_tokens,
        )
        return _served(command.model_id, serving, loaded.weights_bytes)

    def _load_packed(
        self,
        folder: Path,
        manifest: PreparedModel,
        command: LoadModel,
        on_progress: Callable[[float], None],
    ) -> ServedModel:
        assert self._device is not None, "the device is opened first"
        kernels = load_kernels()
        if isinstance(kernels, NoKernels):
            raise ModelLoadFailed(
                f"cannot serve {command.model_id} as {command.dtype}: there are no CPU kernels "
                f"({kernels.reason}); leave dtype out of its profile"
            )
        weight_format = msgspec.convert(command.dtype, WeightFormat)
        packed = load_packed(folder, manifest, weight_format, self._device, kernels, on_progress)
        if self._pool is None:
            self._pool = kernels.pool(self._threads)
            told = kv(variant=kernels.variant, threads=self._threads)
            log.info("CPU kernels ready", extra=told)
        serving = HostServing(
            packed,
            kernels,
            self._pool,
            context_tokens=command.context_tokens,
            max_sequences=command.max_sequences,
            kv_cache_bytes=command.kv_cache_bytes,
        )
        return _served(command.model_id, serving, packed.size_bytes)

    def describe(self, error: Exception) -> CortexError:
        """Return a library's exception as one of ours."""
        if isinstance(error, CortexError):
            return error
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
            # What the CPU allocator raises has no class of its own.
            isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
        ):
            return OutOfMemory(f"cannot allocate memory on the device: {error}")
        return InternalError(f"cannot go on: {type(error).__name__}: {error}")

    def is_poisoned(self, error: Exception) -> bool:
        """Tell whether CUDA's context is lost: after most of its errors nothing works any more."""
        if isinstance(error, torch.OutOfMemoryError):
            return False
        return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)


def _served(model_id: ModelId, serving: ModelServing, weights_bytes: int) -> ServedModel:
    return ServedModel(
        loaded=ModelLoaded(
            model_id=model_id,
            weights_id=serving.weights_id,
            weights_bytes=weights_bytes,
            kv_cache_bytes=serving.sizes.size_bytes,
            num_blocks=serving.sizes.num_blocks,
            context_tokens=serving.sizes.context_tokens,
        ),
        new_engine=serving.new_engine,
        free=lambda: _free(serving),
    )


def _free(serving: ModelServing) -> None:
    serving.close()
    # Modules refer to each other in cycles; the memory is wanted now, not at the next collection.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _refuse_too_large(device: Device, manifest: PreparedModel, command: LoadModel) -> None:
    weights = weights_bytes(manifest, command.dtype)
    free_bytes = device.memory_info().free_bytes
    if weights + command.kv_cache_bytes > free_bytes:
        raise OutOfMemory(
            f"cannot load {command.model_id} on {device.name}: weights of "
            f"{manifest.num_parameters} values in {command.dtype} take {weights} bytes and "
            f"the KV cache {command.kv_cache_bytes}, {weights + command.kv_cache_bytes} in "
            f"all, and {free_bytes} are free"
        )
