"""What an actor on the host's processors computes with: the CPU kernels, over packed weights.

Torch and transformers take seconds to import, and stay out until something needs them: weights that
are packed for the first time, or a model that torch computes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_core.errors import CortexError, ModelLoadFailed, OutOfMemory
from cortex_core.logs import kv
from neurond.actor.backend import OpenedDevice, ServedModel, described, served
from neurond.engine.host_states import HostStates
from neurond.host import process_memory
from neurond.kernels.file_memory import borrowed_bytes
from neurond.kernels.library import Kernels, Pool
from neurond.kernels.packed_file import (
    Damaged,
    PackedDecoder,
    WeightFormat,
    packed_path,
    peek,
    plan_source,
)
from neurond.kernels.packed_model import PackedModel, open_packed
from neurond.kernels.variants import NoKernels, load_kernels
from neurond.memory_plan import activation_bytes, packed_bytes
from neurond.models.host_serving import HostServing
from neurond.models.host_serving import activation_bytes as activation_bytes_of
from neurond.protocol import Configure, LoadModel
from neurond.sources.prepared import DECODER_POOLING, Pooling, PreparedModel, read_manifest

if TYPE_CHECKING:
    from neurond.actor.host_torch import HostTorch
    from neurond.engine.host_runner import Tower

log = logging.getLogger(__name__)


class CpuBackend:
    """See `neurond.actor.backend.Backend`."""

    def __init__(self) -> None:
        self._configure: Configure | None = None
        self._kernels: Kernels | NoKernels = NoKernels("the device is not open")
        self._pool: Pool | None = None  # once a model needs it
        self._torch: HostTorch | None = None

    def open(self, configure: Configure) -> OpenedDevice:
        """Find the kernels."""
        self._configure = configure
        self._kernels = load_kernels()
        memory = process_memory(configure.memory_budget_bytes, borrowed_bytes())
        if isinstance(self._kernels, NoKernels):
            log.warning("no CPU kernels, torch computes", extra=kv(cause=self._kernels.reason))
            return OpenedDevice(
                "torch-reference",
                memory.total_bytes,
                memory.free_bytes,
                kernels_unavailable_reason=self._kernels.reason,
            )
        return OpenedDevice(
            "cpu-kernels", memory.total_bytes, memory.free_bytes, kernels=self._kernels.variant
        )

    def load(self, command: LoadModel, on_progress: Callable[[float], None]) -> ServedModel:
        """Read packed weights and reserve the KV cache; or leave it to torch.

        Raises:
            ModelLoadFailed: the model cannot be read, or not be served as it is to be.
            OutOfMemory: weights and cache do not fit; the message has the arithmetic.
        """
        assert self._configure is not None, "the device is opened first"
        kernels = self._kernels
        folder = Path(command.model_dir)
        manifest = read_manifest(folder)
        if manifest.kind == "script":
            from neurond.actor.scripted import serve_script

            return serve_script(command, manifest)
        named = command.dtype
        if named == "float32" or named == "float16" or not manifest.has_plan:
            return self._with_torch(self._configure).load(command, on_progress)
        if isinstance(kernels, NoKernels):
            return self._with_torch(self._configure).load_instead(
                command, f"there are no CPU kernels ({kernels.reason})", on_progress
            )
        weight_format: WeightFormat = "bf16" if named == "bfloat16" else named
        path = packed_path(folder, manifest.weights_hash, weight_format, kernels.layout)
        weights = packed_bytes(manifest, named)
        self._refuse_too_large(command, manifest, kernels, _peeked(path), weights)
        wanted = (kernels, manifest.weights_hash, weight_format)
        packed = open_packed(path, *wanted)
        takes_images = manifest.images is not None
        of_tower = on_progress
        if packed is None or (takes_images and packed.decoder.two_way_tokens is None):
            made = self._with_torch(self._configure).pack(
                command, manifest, weight_format, kernels, on_progress
            )
            if isinstance(made, ServedModel):
                return made
            if isinstance(made, PackedModel):
                packed = made
                self._refuse_too_large(command, manifest, kernels, packed.decoder, 0)
            else:
                self._refuse_too_large(command, manifest, kernels, _peeked(made), weights)
                packed = _reopened(made, *wanted)
            of_tower = _silent  # it is little beside packing
        vision = None
        if takes_images:
            two_way_tokens = packed.decoder.two_way_tokens
            assert two_way_tokens is not None, "it was looked for when the model was packed"
            torch = self._with_torch(self._configure)
            vision = torch.tower(command, manifest, two_way_tokens, kernels, of_tower)
        on_progress(1.0)
        pooling = manifest.pooling or DECODER_POOLING
        return self._serve(command, packed, kernels, pooling, vision)

    def describe(self, error: Exception) -> CortexError:
        """Return a library's exception as one of ours."""
        return described(error) if self._torch is None else self._torch.describe(error)

    def is_poisoned(self, error: Exception) -> bool:  # noqa: ARG002 -- part of Backend
        """Tell whether the device is unusable: the host never is."""
        return False

    def _serve(
        self,
        command: LoadModel,
        packed: PackedModel,
        kernels: Kernels,
        pooling: Pooling,
        vision: Tower | None,
    ) -> ServedModel:
        pool = self._opened_pool(kernels)
        serving = HostServing(
            packed,
            kernels,
            pool,
            context_tokens=command.context_tokens,
            max_sequences=command.max_sequences,
            kv_cache_bytes=command.kv_cache_bytes,
            kv_format="int8" if command.kv_dtype == "int8" else "bf16",
            speculation=command.speculation,
            vision=vision,
        )
        return served(
            command,
            serving,
            HostStates(kernels, pool, packed, pooling),
            packed.size_bytes + (vision.weights_bytes if vision is not None else 0),
            vocab_size=packed.decoder.vocab_size,
            dtype=command.dtype,
            kv_dtype=command.kv_dtype or "bfloat16",
            kernels=kernels.variant,
            make_resident=serving.make_resident,
            stepped=serving.stepped,
            activation_bytes=self._activation_bytes(command, kernels, packed.decoder),
        )

    def _refuse_too_large(
        self,
        command: LoadModel,
        manifest: PreparedModel,
        kernels: Kernels,
        decoder: PackedDecoder | None,
        weights_bytes: int,
    ) -> None:
        """Refuse what does not fit before anything is reserved for it.

        Args:
            decoder: what is packed; None leaves what steps take at an estimate.
            weights_bytes: of those that are not in memory yet.

        Raises:
            OutOfMemory: it does not fit; the message has the arithmetic.
        """
        assert self._configure is not None, "the device is opened first"
        threads = self._configure.threads
        if decoder is not None:
            steps = self._activation_bytes(command, kernels, decoder)
        else:
            sequences = command.max_sequences
            steps = activation_bytes(manifest, command.dtype, "cpu", sequences, threads=threads)
        needed = weights_bytes + command.kv_cache_bytes + steps
        budget_bytes = self._configure.memory_budget_bytes
        free_bytes = process_memory(budget_bytes, borrowed_bytes()).free_bytes
        if needed > free_bytes:
            raise OutOfMemory(
                f"cannot load {command.model_id} on cpu: weights in {command.dtype} take "
                f"{weights_bytes} bytes, the KV cache {command.kv_cache_bytes} and steps of "
                f"{threads} threads {steps}, {needed} bytes in all, and {free_bytes} are free; "
                "lower context_tokens, max_sequences or kv_cache_mb, or unload another model"
            )

    def _activation_bytes(
        self, command: LoadModel, kernels: Kernels, decoder: PackedDecoder
    ) -> int:
        return activation_bytes_of(
            decoder,
            kernels,
            self._opened_pool(kernels),
            context_tokens=command.context_tokens,
            max_sequences=command.max_sequences,
            speculation=command.speculation,
        )

    def _opened_pool(self, kernels: Kernels) -> Pool:
        if self._pool is None:
            assert self._configure is not None, "the device is opened first"
            threads = self._configure.threads
            self._pool = kernels.pool(threads)
            log.info("CPU kernels ready", extra=kv(variant=kernels.variant, threads=threads))
        return self._pool

    def _with_torch(self, configure: Configure) -> HostTorch:
        if self._torch is None:
            from neurond.actor.host_torch import HostTorch

            self._torch = HostTorch(configure)
        return self._torch


def _peeked(path: Path) -> PackedDecoder | None:
    """Return what is packed in a file; None where there is none, or none to be used."""
    try:
        decoder = peek(path)
    except (OSError, Damaged):
        return None  # whoever opens it says why
    return decoder if decoder.plan_source == plan_source() else None


def _silent(_progress: float) -> None:
    """Take no note of progress."""


def _reopened(
    path: Path, kernels: Kernels, weights_hash: str, weight_format: WeightFormat
) -> PackedModel:
    packed = open_packed(path, kernels, weights_hash, weight_format)
    if packed is None:
        raise ModelLoadFailed(f"cannot read {path}: it was changed after it was written; try again")
    return packed
