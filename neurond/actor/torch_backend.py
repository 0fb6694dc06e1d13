"""The backend that serves real models: transformers' modeling code under torch."""

import gc
from pathlib import Path

import torch

from cortex_core.errors import CortexError, InternalError, OutOfMemory
from neurond.actor.backend import LoadProgressCallback, OpenedDevice, ServedModel
from neurond.engine.device import Device, open_device
from neurond.models.loader import load_model
from neurond.models.serving import Serving, preferred_backend
from neurond.protocol import Configure, LoadModel, ModelLoaded
from neurond.sources.prepared import read_manifest

_HOST_ALLOCATOR_WORDS = "can't allocate memory"


class TorchBackend:
    """One device under torch."""

    def __init__(self) -> None:
        self._device: Device

    def open(self, configure: Configure) -> OpenedDevice:
        """Open the device and set torch's threads."""
        self._device = open_device(
            configure.device, configure.threads, configure.memory_budget_bytes
        )
        memory = self._device.memory_info()
        dtype = "float32" if self._device.compute_capability is None else "bfloat16"
        return OpenedDevice(
            attention_backend=preferred_backend(self._device, dtype),
            memory_total_bytes=memory.total_bytes,
            memory_free_bytes=memory.free_bytes,
        )

    def load(self, command: LoadModel, on_progress: LoadProgressCallback) -> ServedModel:
        """Read the weights and allocate the KV cache."""
        folder = Path(command.model_dir)
        loaded = load_model(folder, read_manifest(folder), command.dtype, self._device, on_progress)
        serving = Serving(
            loaded,
            context_tokens=command.context_tokens,
            max_sequences=command.max_sequences,
            kv_cache_bytes=command.kv_cache_bytes,
            block_tokens=command.block_tokens,
        )
        notice = ModelLoaded(
            model_id=command.model_id,
            weights_id=serving.weights_id,
            weights_bytes=loaded.weights_bytes,
            kv_cache_bytes=serving.sizes.size_bytes,
            num_blocks=serving.sizes.num_blocks,
            context_tokens=serving.sizes.context_tokens,
        )
        return ServedModel(notice, serving.new_engine, lambda: _free(serving))

    def describe(self, error: Exception) -> CortexError:
        """Tell memory that ran out from defects."""
        if isinstance(error, CortexError):
            return error
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
            isinstance(error, RuntimeError) and _HOST_ALLOCATOR_WORDS in str(error)
        ):
            return OutOfMemory(f"cannot compute: the device is out of memory: {error}")
        return InternalError(f"cannot compute: {type(error).__name__}: {error}")

    def is_poisoned(self, error: Exception) -> bool:
        """Tell errors after which the CUDA context answers nothing else any more."""
        if isinstance(error, torch.OutOfMemoryError):
            return False
        return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)


def _free(serving: Serving) -> None:
    serving.close()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
