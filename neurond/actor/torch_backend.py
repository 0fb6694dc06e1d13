"""What an actor computes with: torch, on the device that it is told to open."""

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from cortex_core.errors import CortexError, OutOfMemory
from cortex_core.neuron_api import EmbeddingSizes
from neurond.actor.backend import OpenedDevice, ServedModel, described, served
from neurond.actor.scripted import serve_script
from neurond.engine.device import Device, open_device
from neurond.memory_plan import unpacked_bytes
from neurond.models.decoder_states import DecoderStates
from neurond.models.encoder import Encoder, load_encoder
from neurond.models.loader import LoadedModel, load_model
from neurond.models.serving import Serving, preferred_backend
from neurond.protocol import Configure, LoadModel, ModelLoaded
from neurond.sources.prepared import DECODER_POOLING, PreparedModel, read_manifest


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
            attention_backend=preferred_backend(self._device, "bfloat16"),
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
        """
        folder = Path(command.model_dir)
        manifest = read_manifest(folder)
        if manifest.kind == "script":
            return serve_script(command, manifest)
        _refuse_too_large(self.device, manifest, command)
        if not manifest.generates:
            encoder = load_encoder(folder, manifest, command.dtype, self.device, on_progress)
            return _served_encoder(encoder, manifest, command)
        loaded = load_model(folder, manifest, command.dtype, self.device, on_progress)
        return self.serve(loaded, command, kernels_unavailable_reason)

    def serve(
        self, loaded: LoadedModel, command: LoadModel, kernels_unavailable_reason: str | None
    ) -> ServedModel:
        """Allocate the KV cache of a model in memory."""
        serving = Serving(
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
        return replace(made, free=lambda: _free(free))

    def describe(self, error: Exception) -> CortexError:
        """Return a library's exception as one of ours."""
        if isinstance(error, torch.OutOfMemoryError) or (
            # What the CPU allocator raises has no class of its own.
            isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
        ):
            return OutOfMemory(f"cannot allocate memory on the device: {error}")
        return described(error)

    def is_poisoned(self, error: Exception) -> bool:
        """Tell whether CUDA's context is lost: after most of its errors nothing works any more."""
        if isinstance(error, torch.OutOfMemoryError):
            return False
        return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)


def _served_encoder(encoder: Encoder, manifest: PreparedModel, command: LoadModel) -> ServedModel:
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
    return ServedModel(loaded, None, lambda: _free(gc.collect), None, encoder)


def _free(free: Callable[[], object]) -> None:
    free()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
