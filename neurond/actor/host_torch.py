"""Torch in an actor on the host's processors: what the CPU kernels need once, or cannot do."""

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from cortex_core.errors import ModelLoadFailed
from cortex_core.logs import kv
from cortex_core.neuron_api import Dtype
from neurond.actor.backend import ServedModel
from neurond.actor.torch_backend import TorchBackend
from neurond.kernels.library import Kernels
from neurond.kernels.packed_file import WeightFormat
from neurond.kernels.packed_model import PackedModel
from neurond.models.packed_loader import load_unpacked, pack_loaded
from neurond.protocol import Configure, LoadModel
from neurond.sources.prepared import PreparedModel

log = logging.getLogger(__name__)


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
    ) -> PackedModel | ServedModel:
        """Pack the model's weights for the kernels; serve it with torch where they have no plan.

        Raises:
            ModelLoadFailed: it cannot be read, or it has no plan and torch is not to serve it.
            OutOfMemory: the weights cannot be held in float32 while they are packed.
        """
        folder = Path(command.model_dir)
        loaded = load_unpacked(folder, manifest, self.device, on_progress)
        made = pack_loaded(loaded, folder, weight_format, kernels, on_progress)
        if isinstance(made, PackedModel):
            return made
        if command.fallback_dtype != "float32":
            del loaded
            return self.load_instead(command, made.reason, on_progress)
        _tell(command, made.reason)
        return self.serve(loaded, _instead(command, "float32"), made.reason)

    def load_instead(
        self, command: LoadModel, reason: str, on_progress: Callable[[float], None]
    ) -> ServedModel:
        """Serve a model with torch that the kernels cannot serve.

        Raises:
            ModelLoadFailed: it cannot be read, or torch is not to serve it.
            OutOfMemory: it does not fit.
        """
        if command.fallback_dtype is None:
            raise ModelLoadFailed(
                f"cannot serve {command.model_id} as {command.dtype}: {reason}; leave dtype out "
                "of its profile"
            )
        _tell(command, reason)
        return self.load(_instead(command, command.fallback_dtype), on_progress, reason)


def _instead(command: LoadModel, dtype: Dtype) -> LoadModel:
    """Return the load for torch, of as many tokens as were planned with keys in bfloat16."""
    kv_cache_bytes = command.kv_cache_bytes * (2 if dtype == "float32" else 1)
    return msgspec.structs.replace(command, dtype=dtype, kv_cache_bytes=kv_cache_bytes)


def _tell(command: LoadModel, reason: str) -> None:
    told = kv(model=command.model_id, dtype=command.fallback_dtype, cause=reason)
    log.warning("torch computes a model, slower than the CPU kernels would", extra=told)
