"""Torch in an actor on the host's processors: what the CPU kernels need once, or cannot do."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from cortex_core.errors import ModelLoadFailed
from cortex_core.logs import kv
from cortex_core.neuron_api import Dtype
from neurond.actor.backend import ServedModel
from neurond.actor.torch_backend import TorchBackend
from neurond.engine.vision import Vision
from neurond.kernels.library import Kernels
from neurond.kernels.packed_file import WeightFormat
from neurond.kernels.packed_model import PackedModel
from neurond.models.decoder_plan import NoPlan
from neurond.models.packed_loader import pack_model
from neurond.models.tower import load_tower
from neurond.protocol import Configure, LoadModel
from neurond.sources.prepared import PreparedModel
from neurond.weight_choice import KERNELS_ONLY

log = logging.getLogger(__name__)

_NUMBER_BYTES: Final[dict[Dtype, int]] = {
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "int8": 1,
    "int4": 1,
}
"""Of a key or value, without scales."""


class HostTorch(TorchBackend):
    """Opens the host by itself when it is made."""

    def __init__(self, configure: Configure) -> None:
        super().__init__()
        self.open(configure)

    def pack(
        self,
        command: LoadModel,
        manifest: PreparedModel,
        weight_format: WeightFormat,
        kernels: Kernels,
        on_progress: Callable[[float], None],
    ) -> Path | PackedModel | ServedModel:
        """Pack the model's weights for the kernels; serve it with torch where they have no plan.

        See `pack_model`.

        Raises:
            ModelLoadFailed: it cannot be read, or it has no plan and torch is not to serve it.
            OutOfMemory: there is no memory to pack it with, or to serve it with torch.
        """
        folder = Path(command.model_dir)
        made = pack_model(folder, manifest, weight_format, kernels, self.device, on_progress)
        if isinstance(made, NoPlan):
            return self.load_instead(command, made.reason, on_progress)
        return made

    def tower(
        self,
        command: LoadModel,
        manifest: PreparedModel,
        two_way_tokens: int,
        kernels: Kernels,
        on_progress: Callable[[float], None],
    ) -> Vision:
        """Load what looks at images, for a model that the kernels compute.

        In bfloat16 where the processor has tiles for it: several times as fast, as the tower
        multiplies thousands of patches at once.

        Raises:
            ModelLoadFailed: it cannot be read.
        """
        folder = Path(command.model_dir)
        dtype = "bfloat16" if kernels.variant == "amx" else "float32"
        return load_tower(folder, manifest, dtype, self.device, two_way_tokens, on_progress)

    def load_instead(
        self, command: LoadModel, reason: str, on_progress: Callable[[float], None]
    ) -> ServedModel:
        """Serve a model with torch that the kernels cannot serve.

        Raises:
            ModelLoadFailed: it cannot be read, or torch is not to serve it.
            OutOfMemory: it does not fit.
        """
        instead = _instead(command, reason)
        _tell(command, reason)
        return self.load(instead, on_progress, reason)


def _instead(command: LoadModel, reason: str) -> LoadModel:
    """Return the load for torch, of as many tokens as were planned for the kernels.

    Raises:
        ModelLoadFailed: torch is not to serve it.
    """
    dtype = command.fallback_dtype
    if dtype is None:
        named = ("dtype", f"as {command.dtype}")
        if command.dtype not in KERNELS_ONLY:
            named = ("kv_dtype", f"with keys and values in {command.kv_dtype}")
        raise ModelLoadFailed(
            f"cannot serve {command.model_id} {named[1]}: {reason}; leave {named[0]} out of its "
            "profile"
        )
    planned = command.kv_dtype or "bfloat16"
    kv_cache_bytes = command.kv_cache_bytes * _NUMBER_BYTES[dtype] // _NUMBER_BYTES[planned]
    return msgspec.structs.replace(command, dtype=dtype, kv_cache_bytes=kv_cache_bytes)


def _tell(command: LoadModel, reason: str) -> None:
    told = kv(model=command.model_id, dtype=command.fallback_dtype, cause=reason)
    log.warning("torch computes a model, slower than the CPU kernels would", extra=told)
