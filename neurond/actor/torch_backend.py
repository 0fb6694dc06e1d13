"""What an actor computes with: torch, on the device that it is told to open."""

import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from cortex_core.errors import CortexError, DeviceFailed, OutOfMemory, error_from_info
from cortex_core.logs import kv
from cortex_core.neuron_api import EmbeddingSizes
from neurond.actor.backend import OpenedDevice, ServedModel, described, served
from neurond.actor.scripted import serve_script
from neurond.devices import BFLOAT16_MIN_MAJOR
from neurond.engine.device import Device, open_device
from neurond.memory_plan import unpacked_bytes
from neurond.models.decoder_states import DecoderStates
from neurond.models.encoder import Encoder, load_encoder
from neurond.models.loader import LoadedModel, load_model
from neurond.models.torch_serving import TorchServing, preferred_backend
from neurond.protocol import Configure, LoadModel, ModelLoaded
from neurond.sources.prepared import DECODER_POOLING, PreparedModel, read_manifest

_log = logging.getLogger(__name__)
_NO_MEMORY = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "[CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


class TorchBackend:
    """See `neurond.actor.backend.Backend`."""

    def __init__(self) -> None:
        self._device: Device | None = None

    @property
    def device(self) -> Device:
        """The device, once it is open."""
        assert self._device is not None, "the device is opened first"
        return self._device

    def open(self, configure: Configure) -> OpenedDevice:
        """Open the device and set torch's number of threads."""
        self._device = open_device(
            configure.device, configure.threads, configure.memory_budget_bytes
        )
        memory = self._device.memory_info()
        return OpenedDevice(
            attention_backend=preferred_backend(self._device, _typical_dtype(self._device)).name,
            memory_total_bytes=memory.total_bytes,
            memory_free_bytes=memory.free_bytes,
        )

    def load(
        self,
        command: LoadModel,
        on_progress: Callable[[float], None],
        kernels_unavailable_reason: str | None = None,
    ) -> ServedModel:
        """Load weights and allocate the KV cache.

        Args:
            kernels_unavailable_reason: see `ModelLoaded`.

        Raises:
            ModelLoadFailed: the model cannot be read, or not be served.
            OutOfMemory: weights and cache do not fit; the message has the arithmetic.
            DeviceFailed: the device is lost; the process must end.
        """
        try:
            made = self._load(command, on_progress, kernels_unavailable_reason)
            # The engines' thread has a stream of its own, which waits for nothing of this one's.
            self.device.settle()
        except Exception as ex:  # noqa: BLE001 - told as one of ours
            if not isinstance(ex, CortexError):
                _log.exception("load failed", extra=kv(model=command.model_id))
            error = self._of_load(ex).info()
        else:
            return made
        # Only here nothing refers to the exception any more, nor through it to what was loaded.
        if error.code != DeviceFailed.code:
            gc.collect()
            try:
                self.device.settle()
            except Exception as ex:
                # What was lost meanwhile, and what the load took for a fault of the file.
                raise self._of_load(ex) from ex
        raise error_from_info(error)

    def _load(
        self,
        command: LoadModel,
        on_progress: Callable[[float], None],
        kernels_unavailable_reason: str | None,
    ) -> ServedModel:
        folder = Path(command.model_dir)
        manifest = read_manifest(folder)
        if manifest.kind == "script":
            return serve_script(command, manifest)
        _refuse_too_large(self.device, manifest, command)
        if not manifest.generates:
            encoder = load_encoder(folder, manifest, command.dtype, self.device, on_progress)
            return self._serve_encoder(encoder, manifest, command)
        loaded = load_model(folder, manifest, command.dtype, self.device, on_progress)
        return self.serve(loaded, command, kernels_unavailable_reason)

    def serve(
        self, loaded: LoadedModel, command: LoadModel, kernels_unavailable_reason: str | None
    ) -> ServedModel:
        """Allocate the KV cache of a model in memory."""
        serving = TorchServing(
            loaded,
            context_tokens=command.context_tokens,
            max_sequences=command.max_sequences,
            kv_cache_bytes=command.kv_cache_bytes,
            block_tokens=command.block_tokens,
            speculation=command.speculation,
        )
        made = served(
            command,
            serving,
            DecoderStates(loaded, loaded.manifest.pooling or DECODER_POOLING),
            loaded.weights_bytes,
            vocab_size=loaded.vocab_size,
            dtype=command.dtype,
            kv_dtype=command.dtype,
            kernels="torch",
            kernels_unavailable_reason=kernels_unavailable_reason,
        )
        free = made.free
        return replace(made, free=lambda: self._free(free))

    def describe(self, error: Exception) -> CortexError:
        """Return a library's exception as one of ours."""
        if _is_out_of_memory(error):
            return OutOfMemory(f"cannot allocate memory on the device: {error}")
        return described(error)

    def is_poisoned(self, error: Exception) -> bool:
        """Tell whether CUDA's context is lost: after most of its errors nothing works any more."""
        if isinstance(error, CortexError) or _is_out_of_memory(error):
            return False
        told = str(error)
        # Of torch, of its libraries and of Triton.
        return isinstance(error, torch.AcceleratorError) or "CUDA error" in told or "[CUDA]" in told

    def _serve_encoder(
        self, encoder: Encoder, manifest: PreparedModel, command: LoadModel
    ) -> ServedModel:
        context_tokens = min(command.context_tokens, encoder.max_input_tokens)
        loaded = ModelLoaded(
            model_id=command.model_id,
            weights_id=f"{manifest.weights_hash}-{command.dtype}",
            weights_bytes=encoder.weights_bytes,
            kv_cache_bytes=0,
            num_blocks=0,
            context_tokens=context_tokens,
            dtype=command.dtype,
            kernels="torch",
            embedding=EmbeddingSizes(encoder.dimensions, context_tokens),
        )
        return ServedModel(loaded, None, lambda: self._free(gc.collect), None, encoder)

    def _free(self, free: Callable[[], object]) -> None:
        self.device.settle()
        free()
        self.device.settle()

    def _of_load(self, error: Exception) -> CortexError:
        if self.is_poisoned(error):
            return DeviceFailed(f"cannot go on with {self.device.name}: {error}")
        return self.describe(error)


def _is_out_of_memory(error: Exception) -> bool:
    """Tell whether something found no memory: the context is sound, and what is loaded goes on.

    What other allocators than torch's for the device say has no class of its own: the host's,
    CUDA's, asked for pinned memory or by Triton, and cuBLAS's.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def _typical_dtype(device: Device) -> torch.dtype:
    """Return what models are loaded in where their profile names nothing."""
    capability = device.compute_capability
    old = capability is not None and capability[0] < BFLOAT16_MIN_MAJOR
    return torch.float16 if old else torch.bfloat16


def _refuse_too_large(device: Device, manifest: PreparedModel, command: LoadModel) -> None:
    weights = unpacked_bytes(manifest, command.dtype)
    free_bytes = device.memory_info().free_bytes
    if weights + command.kv_cache_bytes > free_bytes:
        raise OutOfMemory(
            f"cannot load {command.model_id} on {device.name}: weights of "
            f"{manifest.num_parameters} values in {command.dtype} take {weights} bytes and "
            f"the KV cache {command.kv_cache_bytes}, {weights + command.kv_cache_bytes} in "
            f"all, and {free_bytes} are free"
        )
